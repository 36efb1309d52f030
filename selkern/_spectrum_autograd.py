"""Covariances and their spectra as autograd functions, differentiable to any order.

Where a function has outputs that no caller sees, its backward reads them, and second derivatives
find their way back through them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from selkern import _linalg_autograd
from selkern._layout import result_dtype
from selkern._numerics import (
    as_batch,
    as_rows,
    full_precision,
    matmul,
    needs_gradient,
    quick_to_apply,
)

_ops = torch.ops.selkern

# At this scale float32 holds the squares, and the sums of them, of activations from 1e-15 to 1e18.
SCALE = {torch.float32: 2.0**-8, torch.float64: 1.0}


def covariance_factor(x: Tensor, correction: int) -> float:
    """Return what makes a covariance of the product of centered, scaled ``x`` ``[..., N, D]``."""
    return 1 / (SCALE[result_dtype(x.dtype)] ** 2 * (x.shape[-2] - correction))


@quick_to_apply
class Center(torch.autograd.Function):
    """``scale`` times the difference from the mean over the samples: its own gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, scale: float) -> Tensor:
        return _ops.center(as_batch(x), scale).reshape(x.shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        x, ctx.scale = inputs
        ctx.dtype = x.dtype

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return Center.apply(grad, ctx.scale).to(ctx.dtype), None


def centered_samples(x: Tensor) -> Tensor:
    """Return the centered, scaled samples, outside of autograd."""
    return Center.forward(x, SCALE[result_dtype(x.dtype)])


def _product(x: Tensor, gram: bool) -> Tensor:
    """Return ``X X^T`` (the Gram matrix) or ``X^T X`` of the centered, scaled samples ``X``."""
    with full_precision(x):
        product = _ops.centered_product(as_batch(x), SCALE[result_dtype(x.dtype)], gram)
    return product.reshape(*x.shape[:-2], *product.shape[1:])


def _through_product(x: Tensor, of_product: Tensor, gram: bool, scale: float) -> Tensor:
    """Return ``of_product X`` for a Gram matrix, otherwise ``X of_product``, in the dtype of ``x``.

    With the symmetric ``2 scale G`` it is the gradient of ``x`` from the gradient ``G`` of the
    product; ``scale`` is that of the samples ``X``.
    """
    if torch.is_grad_enabled():
        centered = Center.apply(x, scale)
        through = matmul(of_product, centered) if gram else matmul(centered, of_product)
        return through.to(x.dtype)
    with full_precision(x):
        through = _ops.centered_matmul(as_batch(x), as_batch(of_product), scale, gram)
    return through.reshape(x.shape)


def _is_gram(x: Tensor) -> bool:
    """Tell whether ``X X^T`` is smaller than ``X^T X``."""
    return x.shape[-2] < x.shape[-1]


@quick_to_apply
class _Covariance(torch.autograd.Function):
    """Covariance ``[..., D, D]`` of ``x`` ``[..., N, D]``."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, correction: int) -> Tensor:
        return _product(x, gram=False) * covariance_factor(x, correction)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
        x, ctx.correction = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        scale = SCALE[grad.dtype]
        through = (grad + grad.mT) * (covariance_factor(x, ctx.correction) * scale)
        return _through_product(x, through, False, scale), None


@quick_to_apply
class _Eigenspectra(torch.autograd.Function):
    """Spectrum ``[..., min(N, D)]`` of the covariance of each ``x`` ``[..., N, D]``.

    The hidden outputs are, for each of them, the eigenvectors of the smaller of ``X X^T`` and
    ``X^T X``, in ascending order.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(correction: int, *xs: Tensor) -> tuple[Tensor, ...]:
        products = [_product(x, _is_gram(x)) for x in xs]
        solutions = _solved_together(products, partial(_linalg_autograd.solve, is_whole=True))
        spectra = [_spectrum_of(values, x, correction) for x, (values, _) in zip(xs, solutions)]
        return (*spectra, *(vectors for _, vectors in solutions))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.correction, *xs = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*xs, *output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        layers = len(grads) // 2
        saved = ctx.saved_tensors
        of_xs = []
        for i in range(layers):
            x, spectrum, vectors = saved[i::layers]
            of_spectrum, of_vectors = grads[i::layers]
            of_xs.append(
                _gradient_of_samples(x, spectrum, vectors, of_spectrum, of_vectors, ctx.correction)
            )
        return (None, *of_xs)


def _gradient_of_samples(
    x: Tensor,
    spectrum: Tensor,
    vectors: Tensor,
    of_spectrum: Tensor | None,
    of_vectors: Tensor | None,
    correction: int,
) -> Tensor | None:
    """Return the gradient of samples from those of their spectrum and of its vectors."""
    scale = SCALE[vectors.dtype]
    grad = None
    if of_spectrum is not None:
        of_values = _through_spectrum(of_spectrum, spectrum, x, correction)
        of_product = _linalg_autograd.through_values(vectors, of_values)
        grad = _through_product(x, of_product, _is_gram(x), scale)
    if of_vectors is not None:
        values = spectrum.flip(-1) / covariance_factor(x, correction)
        of_product = _linalg_autograd.through_vectors(values, vectors, 2 * scale * of_vectors)
        # The vectors of a Gram matrix give a mean, too.
        through = Center.apply(_through_product(x, of_product, _is_gram(x), scale), 1.0)
        grad = through.to(x.dtype) if grad is None else grad + through.to(x.dtype)
    return grad


def _solved_together(products: list[Tensor], solve: Callable[[Tensor], Any]) -> list[Any]:
    """Return what ``solve`` gives for each product, those of one shape taken in one call."""
    # Compared, not looked up: while a model is traced a size may be a symbol.
    groups: list[list[int]] = []
    for i, product in enumerate(products):
        for group in groups:
            first = products[group[0]]
            if first.shape == product.shape and first.dtype == product.dtype:
                group.append(i)
                break
        else:
            groups.append([i])
    solutions: list[Any] = [None] * len(products)
    for indices in groups:
        if len(indices) == 1:
            solutions[indices[0]] = solve(products[indices[0]])
            continue
        together = solve(torch.stack([products[i] for i in indices]))
        of_each = together.unbind() if isinstance(together, Tensor) else zip(*together)
        for i, solution in zip(indices, of_each):
            solutions[i] = solution
    return solutions


def _spectrum_of(values: Tensor, x: Tensor, correction: int) -> Tensor:
    """Return the spectrum from ascending eigenvalues of the product of scaled samples."""
    spectrum = _ops.covariance_spectrum(
        as_rows(values), x.shape[-2], correction, SCALE[values.dtype]
    )
    return spectrum.reshape(values.shape)


def _through_spectrum(of_spectrum: Tensor, spectrum: Tensor, x: Tensor, correction: int) -> Tensor:
    """Return ``2 scale`` times the gradient of those eigenvalues, for ``_through_product``."""
    scale = SCALE[spectrum.dtype]
    if torch.is_grad_enabled():
        factor = 2 * scale * covariance_factor(x, correction)
        return torch.where(spectrum == 0, 0.0, of_spectrum * factor).flip(-1)
    of_values = _ops.covariance_spectrum_backward(
        as_rows(of_spectrum), as_rows(spectrum), x.shape[-2], correction, scale
    )
    return of_values.reshape(spectrum.shape)


@torch.compiler.allow_in_graph
def covariance(x: Tensor, correction: int) -> Tensor:
    """Return the covariance ``[..., D, D]`` of ``x`` ``[..., N, D]``."""
    return _Covariance.apply(x, correction)


@torch.compiler.allow_in_graph
def eigenspectra(xs: list[Tensor], correction: int) -> list[Tensor]:
    """Return the spectrum ``[..., min(N, D)]`` of each ``x`` ``[..., N, D]``."""
    if any(needs_gradient(x) for x in xs):
        return list(_Eigenspectra.apply(correction, *xs)[: len(xs)])
    values = _solved_together(
        [_product(x, _is_gram(x)) for x in xs],
        lambda products: _linalg_autograd.solve_values(products, in_float64=True),
    )
    return [_spectrum_of(of_x, x, correction) for of_x, x in zip(values, xs)]
