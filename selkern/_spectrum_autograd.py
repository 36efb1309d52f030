"""Covariances and their spectra as autograd functions, differentiable to any order.

Where a function has outputs that no caller sees, its backward reads them, and second derivatives
find their way back through them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from selkern import _linalg_autograd
from selkern._layout import result_dtype
from selkern._numerics import (
    as_batch,
    full_precision,
    needs_gradient,
    quick_to_apply,
    rounding_tolerance,
)

_ops = torch.ops.selkern

# At this scale float32 holds the squares, and the sums of them, of activations from 1e-15 to 1e18.
SCALE = {torch.float32: 2.0**-8, torch.float64: 1.0}


def unscaled(x: Tensor, correction: int) -> float:
    """Return what makes covariances of sums of squares of centred, scaled ``x`` ``[..., N, D]``."""
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


def centred_samples(x: Tensor) -> Tensor:
    """Return the centred, scaled samples, outside of autograd."""
    return Center.forward(x, SCALE[result_dtype(x.dtype)])


@quick_to_apply
class _Covariance(torch.autograd.Function):
    """Covariance ``[..., D, D]`` of ``x`` ``[..., N, D]``; hidden: the centred, scaled samples."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, correction: int) -> tuple[Tensor, Tensor]:
        centred = centred_samples(x)
        with full_precision(centred):
            return centred.mT @ centred * unscaled(x, correction), centred

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: tuple[Tensor, Tensor]) -> None:
        x, correction = inputs
        ctx.dtype = x.dtype
        ctx.unscaled = unscaled(x, correction)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor | None, of_centred: Tensor | None
    ) -> tuple[Tensor | None, None]:
        (centred,) = ctx.saved_tensors
        if grad is not None:
            with full_precision(centred):
                through = centred @ (grad + grad.mT) * ctx.unscaled
            of_centred = through if of_centred is None else of_centred + through
        if of_centred is None:
            return None, None
        return Center.apply(of_centred, SCALE[centred.dtype]).to(ctx.dtype), None


@quick_to_apply
class _Eigenspectra(torch.autograd.Function):
    """Spectrum ``[..., min(N, D)]`` of the covariance of each ``x`` ``[..., N, D]``.

    The hidden outputs are, for each of them, the eigenvectors of the smaller of ``X X^T`` and
    ``X^T X``, in ascending order, and the centred, scaled samples.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(correction: int, *xs: Tensor) -> tuple[Tensor, ...]:
        centred = [centred_samples(x) for x in xs]
        solutions = _solved_together([_product(c) for c in centred], _linalg_autograd.solve)
        spectra = [_spectrum_of(values, x, correction) for x, (values, _) in zip(xs, solutions)]
        return (*spectra, *(vectors for _, vectors in solutions), *centred)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        correction, *xs = inputs
        ctx.dtypes = [x.dtype for x in xs]
        ctx.unscaled = [unscaled(x, correction) for x in xs]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        layers = len(ctx.dtypes)
        outputs = ctx.saved_tensors
        of_xs = []
        for i, (dtype, factor) in enumerate(zip(ctx.dtypes, ctx.unscaled)):
            grad = _gradient_of_samples(outputs[i::layers], grads[i::layers], factor)
            of_xs.append(None if grad is None else grad.to(dtype))
        return (None, *of_xs)


def _gradient_of_samples(
    outputs: tuple[Tensor, ...], grads: tuple[Tensor | None, ...], unscaled: float
) -> Tensor | None:
    """Return the gradient of samples from those of their spectrum, vectors and centred values."""
    spectrum, vectors, centred = outputs
    of_spectrum, of_vectors, of_centred = grads
    scale = SCALE[centred.dtype]
    is_centred = of_vectors is None and of_centred is None
    of_values = None
    if of_spectrum is not None:
        factor = 2 * unscaled * (scale if is_centred else 1.0)
        # What is rounding, and set to zero, has no gradient.
        of_values = torch.where(spectrum == 0, 0.0, of_spectrum * factor).flip(-1)
    grad = None
    with full_precision(centred):
        of_product = _linalg_autograd.gradient_of_matrices(
            spectrum.flip(-1) / unscaled,
            vectors,
            of_values,
            None if of_vectors is None else 2 * of_vectors,
        )
        if of_product is not None:
            has_gram = centred.shape[-2] < centred.shape[-1]
            grad = of_product @ centred if has_gram else centred @ of_product
    if is_centred:
        return grad
    if of_centred is not None:
        grad = of_centred if grad is None else grad + of_centred
    return Center.apply(grad, scale)


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


def _product(centred: Tensor) -> Tensor:
    """Return ``X X^T`` or ``X^T X``, whichever is smaller."""
    with full_precision(centred):
        if centred.shape[-2] < centred.shape[-1]:
            return centred @ centred.mT
        return centred.mT @ centred


def _spectrum_of(values: Tensor, x: Tensor, correction: int) -> Tensor:
    """Return the spectrum from ascending eigenvalues of the product of scaled samples."""
    spectrum = values.flip(-1)
    largest = spectrum[..., :1]
    # Not where the largest has overflowed: infinity times the tolerance is infinity.
    is_rounding = (spectrum <= rounding_tolerance(values.dtype) * largest) & ~largest.isinf()
    spectrum = torch.where(is_rounding, 0.0, spectrum * unscaled(x, correction))
    samples = x.shape[-2]
    if spectrum.shape[-1] < samples:
        return spectrum
    # The mean has taken one rank. NaN stays.
    return torch.cat([spectrum[..., :-1], spectrum[..., -1:] * 0], -1)


@torch.compiler.allow_in_graph
def covariance(x: Tensor, correction: int) -> Tensor:
    """Return the covariance ``[..., D, D]`` of ``x`` ``[..., N, D]``."""
    return _Covariance.apply(x, correction)[0]


@torch.compiler.allow_in_graph
def eigenspectra(xs: list[Tensor], correction: int) -> list[Tensor]:
    """Return the spectrum ``[..., min(N, D)]`` of each ``x`` ``[..., N, D]``."""
    if any(needs_gradient(x) for x in xs):
        return list(_Eigenspectra.apply(correction, *xs)[: len(xs)])
    values = _solved_together(
        [_product(centred_samples(x)) for x in xs],
        lambda products: _linalg_autograd.solve_values(products, exactly=True),
    )
    return [_spectrum_of(of_x, x, correction) for of_x, x in zip(values, xs)]
