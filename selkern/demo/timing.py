"""Times of training steps."""

from __future__ import annotations

from collections.abc import Mapping

from selkern._benchmarks.compare import Quartiles

__all__ = ["milliseconds", "milliseconds_text"]


def milliseconds(quartiles: Quartiles) -> dict[str, float]:
    """Median and quartiles in milliseconds, from seconds."""
    return {key: 1e3 * value for key, value in quartiles.as_dict().items()}


def milliseconds_text(values: Mapping[str, float]) -> str:
    """A median with its quartiles."""
    return f"{values['median']:.2f} [{values['lower']:.2f}, {values['upper']:.2f}]"
