"""Holding the fused operators to plain PyTorch while a network trains."""

from __future__ import annotations

from selkern._command import CommandFailed

__all__ = ["LossesDisagree", "accepted"]


class LossesDisagree(CommandFailed):
    """The fused regularizer and plain PyTorch differ on the same activations."""


def accepted(difference: float, tolerance: float, where: str) -> float:
    """Return a difference between two losses, or refuse it."""
    # Written so that a NaN is refused too.
    if not difference <= tolerance:
        raise LossesDisagree(
            f"{where}: the fused regularizer and plain PyTorch differ by {difference:.1e} on the "
            f"same activations, expected at most {tolerance:.0e}"
        )
    return difference
