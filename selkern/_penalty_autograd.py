"""The power-law penalty as an autograd function, differentiable to any order."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from selkern._numerics import as_rows, quick_to_apply

_ops = torch.ops.selkern


@quick_to_apply
class _PowerLawPenalty(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        spectrum: Tensor, kappa: Tensor | None, exponent: float, anchor: int, width: int
    ) -> tuple[Tensor, Tensor]:
        penalty, derivative = _ops.power_law_penalty(
            as_rows(spectrum),
            None if kappa is None else kappa.reshape(-1),
            exponent,
            anchor,
            width,
        )
        return penalty.reshape(spectrum.shape[:-1]), derivative.reshape(spectrum.shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        spectrum, kappa, *ctx.law = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(spectrum, kappa, output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return None, None, None, None, None
        spectrum, kappa, derivative = ctx.saved_tensors
        if torch.is_grad_enabled():
            derivative = penalty_derivative(spectrum, kappa, *ctx.law)
        return grad.unsqueeze(-1) * derivative, None, None, None, None


def penalty_derivative(
    spectrum: Tensor, kappa: Tensor | None, exponent: float, anchor: int, width: int
) -> Tensor:
    """Return the derivative of the penalty by operations that can be differentiated again."""
    rank = torch.arange(1, spectrum.shape[-1] + 1, device=spectrum.device, dtype=spectrum.dtype)
    if kappa is None:
        law, growth = spectrum[..., anchor - 1].detach().unsqueeze(-1), anchor / rank
    else:
        law, growth = kappa.unsqueeze(-1), 1 / rank
    is_counted = (spectrum > 0) & (rank > anchor) & (law > 0)
    target = torch.where(law > 0, law, 1.0) * growth**exponent
    excess = torch.where(is_counted, (spectrum - target) / target, 0.0)
    derivative = (2 * excess + (excess > 0)) / (target * width)
    # A spectrum or a law that is not finite has no derivative that is.
    not_finite = (spectrum.detach() * 0).sum(-1, keepdim=True) + law * 0
    return torch.where(is_counted, derivative, 0.0) + not_finite


@torch.compiler.allow_in_graph
def power_law_penalty(
    spectrum: Tensor, kappa: Tensor | None, exponent: float, anchor: int, width: int
) -> Tensor:
    """Return the penalty ``[...]`` of each spectrum ``[..., R]``."""
    return _PowerLawPenalty.apply(spectrum, kappa, exponent, anchor, width)[0]
