"""Spectra in a basis and their penalty as autograd functions, differentiable to any order."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from selkern._layout import result_dtype
from selkern._numerics import as_batch, full_precision, matmul, quick_to_apply, rounding_tolerance
from selkern._penalty_autograd import penalty_derivative
from selkern._spectrum_autograd import SCALE, Center, centered_samples, covariance_factor

_ops = torch.ops.selkern


@quick_to_apply
class _BasisSpectrum(torch.autograd.Function):
    """Sorted variances ``[..., R]`` of ``x`` ``[..., N, D]`` along the columns of a basis.

    The hidden outputs are the column of each, and the centered, scaled samples in the basis.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, basis: Tensor, correction: int) -> tuple[Tensor, Tensor, Tensor]:
        projected = _projected(x, basis)
        sums, order = _ops.basis_spectrum(as_batch(projected), _sum_scale(x))
        shape = (*x.shape[:-2], basis.shape[1])
        return (sums * _variance(x, correction)).reshape(shape), order.reshape(shape), projected

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, basis, correction = inputs
        _remember(ctx, x, correction)
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(basis, *output)

    @staticmethod
    def backward(
        ctx: Any, of_spectrum: Tensor | None, _: None, of_projected: Tensor | None
    ) -> tuple[Tensor | None, None, None]:
        basis, spectrum, order, projected = ctx.saved_tensors
        by_column = None
        if of_spectrum is not None:
            by_rank = torch.where(spectrum == 0, 0.0, of_spectrum * ctx.variance)
            by_column = torch.zeros_like(by_rank).scatter(-1, order, by_rank)
        return _gradient_in_basis(ctx, basis, projected, by_column, of_projected), None, None


@quick_to_apply
class _BasisPenalty(torch.autograd.Function):
    """Penalty ``[...]`` of that spectrum, and the spectrum, which has no gradient here."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor,
        basis: Tensor,
        kappa: Tensor | None,
        exponent: float,
        anchor: int,
        width: int,
        correction: int,
    ) -> tuple[Tensor, ...]:
        projected = _projected(x, basis)
        variance = _variance(x, correction)
        penalty, sums, order, derivative = _ops.basis_penalty(
            as_batch(projected),
            None if kappa is None else kappa.reshape(-1) / variance,
            _sum_scale(x),
            exponent,
            anchor,
            width,
        )
        shape = (*x.shape[:-2], basis.shape[1])
        return (
            penalty.reshape(shape[:-1]),
            (sums * variance).reshape(shape),
            order.reshape(shape),
            derivative.reshape(shape),
            projected,
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, basis, kappa, ctx.exponent, ctx.anchor, ctx.width, correction = inputs
        _, spectrum, order, derivative, projected = output
        _remember(ctx, x, correction)
        ctx.mark_non_differentiable(spectrum, order, derivative)
        ctx.save_for_backward(basis, kappa, order, derivative, projected)

    @staticmethod
    def backward(
        ctx: Any, of_penalty: Tensor | None, _s: None, _o: None, _d: None, of_projected: Any
    ) -> tuple[Tensor | None, ...]:
        basis, kappa, order, derivative, projected = ctx.saved_tensors
        by_column = None
        if of_penalty is not None:
            if torch.is_grad_enabled():
                sums = projected.square().sum(-2).gather(-1, order) / ctx.scale
                is_rounding = sums <= rounding_tolerance(sums.dtype) * sums[..., :1]
                by_rank = penalty_derivative(
                    torch.where(is_rounding, 0.0, sums),
                    None if kappa is None else kappa / ctx.variance,
                    ctx.exponent,
                    ctx.anchor,
                    ctx.width,
                )
                derivative = torch.zeros_like(by_rank).scatter(-1, order, by_rank)
            by_column = of_penalty.unsqueeze(-1) * derivative
        grad = _gradient_in_basis(ctx, basis, projected, by_column, of_projected)
        return grad, None, None, None, None, None, None


def _projected(x: Tensor, basis: Tensor) -> Tensor:
    with full_precision(x):
        return centered_samples(x) @ basis


# The kernels are given no number that depends on N, which is a symbol while a model is traced.


def _sum_scale(x: Tensor) -> float:
    """Return what the kernels multiply sums of squares by, so that float32 holds them."""
    return 1 / SCALE[result_dtype(x.dtype)]


def _variance(x: Tensor, correction: int) -> float:
    """Return what makes variances of those sums."""
    return covariance_factor(x, correction) / _sum_scale(x)


def _remember(ctx: Any, x: Tensor, correction: int) -> None:
    ctx.dtype = x.dtype
    ctx.variance = _variance(x, correction)
    ctx.scale = SCALE[result_dtype(x.dtype)]
    ctx.set_materialize_grads(False)


def _gradient_in_basis(
    ctx: Any,
    basis: Tensor,
    projected: Tensor,
    by_column: Tensor | None,
    of_projected: Tensor | None,
) -> Tensor | None:
    """Return the gradient of ``x`` from those of the scaled sums and of the projections."""
    grad = None
    if by_column is not None:
        # Of the samples' scale and that of the sums, nothing is left.
        weights = 2 * by_column.unsqueeze(-2)
        # Whichever is smaller is weighted.
        if basis.shape[0] < projected.shape[-2] and by_column.dim() == 1:
            grad = matmul(projected, (basis * weights).mT)
        else:
            grad = matmul(projected * weights, basis.mT)
    if of_projected is not None:
        through = Center.apply(matmul(of_projected, basis.mT), ctx.scale)
        grad = through if grad is None else grad + through
    return None if grad is None else grad.to(ctx.dtype)


@torch.compiler.allow_in_graph
def basis_spectrum(x: Tensor, basis: Tensor, correction: int) -> Tensor:
    """Return the sorted variances ``[..., R]`` of ``x`` along the columns of ``basis``."""
    return _BasisSpectrum.apply(x, basis, correction)[0]


@torch.compiler.allow_in_graph
def basis_penalty(
    x: Tensor, basis: Tensor, kappa: Tensor | None, exponent: float, anchor: int
) -> tuple[Tensor, Tensor]:
    """Return the penalty of ``x`` ``[N, D]`` in a basis, and the spectrum it is of."""
    penalty, spectrum, *_ = _BasisPenalty.apply(x, basis, kappa, exponent, anchor, x.shape[1], 1)
    return penalty, spectrum
