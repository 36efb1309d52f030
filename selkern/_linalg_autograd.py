"""Eigenvalues of symmetric matrices as autograd functions, differentiable to any order."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor

from selkern import _crossover
from selkern._numerics import (
    as_batch,
    matmul,
    needs_gradient,
    quick_to_apply,
    rounding_tolerance,
)

_ops = torch.ops.selkern

# Entries this much smaller than the largest make LAPACK's float32 solver fail.
_NEGLIGIBLE = 1e-20


def solve(a: Tensor, *, is_whole: bool = False) -> tuple[Tensor, Tensor]:
    """Return eigenvalues and eigenvectors of ``a`` ``[..., M, M]``, float32 or float64.

    Only the lower triangle is read, unless ``is_whole`` says that the upper one mirrors it.
    """
    matrices = as_batch(a)
    if _crossover.fits_own_kernel(matrices, with_vectors=True):
        values, vectors = _ops.eigh(matrices)
    else:
        values, vectors = _by_torch(partial(_eigh_by_torch, is_whole=is_whole), matrices)
    return values.reshape(a.shape[:-1]), vectors.reshape(a.shape)


def solve_values(a: Tensor, *, in_float64: bool = False) -> Tensor:
    """Return the eigenvalues of ``a`` ``[..., M, M]``, without any vectors.

    LAPACK's solver in float32 errs by more than what counts as rounding for large matrices;
    ``in_float64`` has it work in float64.
    """
    matrices = as_batch(a)
    if _crossover.fits_own_kernel(matrices, with_vectors=False):
        values = _ops.eigvalsh(matrices)
    else:
        wanted = matrices.double() if in_float64 else matrices
        (values,) = _by_torch(lambda m: (torch.linalg.eigvalsh(m),), wanted)
    return values.to(a.dtype).reshape(a.shape[:-1])


def _eigh_by_torch(matrices: Tensor, *, is_whole: bool) -> tuple[Tensor, Tensor]:
    """Return what ``torch.linalg.eigh`` gives, with eigenvalues as exact as the vectors allow.

    LAPACK's float32 eigenvalues err by several 1e-6 of the largest where rounding has a direction,
    as in matrices of rank one. Quotients err by the square of the vectors' errors.
    """
    values, vectors = torch.linalg.eigh(matrices)
    if matrices.device.type != "cpu" or matrices.dtype == torch.float64:
        return values, vectors
    symmetric = matrices if is_whole else _mirrored(matrices)
    # Of values that are as good as equal, rounding may have changed the order.
    return _ops.rayleigh_quotients(symmetric, vectors).cummax(-1).values, vectors


def _by_torch(
    solver: Callable[[Tensor], tuple[Tensor, ...]], matrices: Tensor
) -> tuple[Tensor, ...]:
    """Return what torch's ``solver`` gives, NaN for matrices that are not finite."""
    if _can_look_at(matrices) and math.isfinite(matrices.sum().item()):
        with suppress(torch.linalg.LinAlgError):  # type: ignore[attr-defined]
            return tuple(solver(matrices))
    usable, is_finite = _usable(matrices)
    results = solver(usable)
    return tuple(
        torch.where(is_finite if result.dim() == 3 else is_finite[..., 0], result, torch.nan)
        for result in results
    )


def _can_look_at(x: Tensor) -> bool:
    """Tell whether the values of ``x`` are there, without waiting for a GPU."""
    is_transformed = torch._C._are_functorch_transforms_active()
    return x.device.type == "cpu" and type(x) is Tensor and not is_transformed


def _usable(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Return the matrices without what torch's solver fails on, and which are finite."""
    lower = matrices.tril()
    magnitude = lower.abs()
    is_finite = magnitude.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
    largest = magnitude.amax((-2, -1), keepdim=True)
    is_kept = is_finite & (magnitude >= _NEGLIGIBLE * largest)
    return _mirrored(torch.where(is_kept, lower, 0.0)), is_finite


def _mirrored(matrices: Tensor) -> Tensor:
    """Return the symmetric matrices of these lower triangles."""
    return matrices.tril() + matrices.tril(-1).mT


@quick_to_apply
class _Eigh(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor) -> tuple[Tensor, Tensor]:
        return solve(a)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*output)

    @staticmethod
    def backward(ctx: Any, of_values: Tensor | None, of_vectors: Tensor | None) -> Tensor | None:
        values, vectors = ctx.saved_tensors
        grad = None
        if of_values is not None:
            grad = through_values(vectors, of_values)
        if of_vectors is not None:
            through = through_vectors(values, vectors, of_vectors)
            grad = through if grad is None else grad + through
        return grad


def through_values(vectors: Tensor, of_values: Tensor) -> Tensor:
    """Return the gradient of symmetric matrices from that of their eigenvalues."""
    return matmul(vectors * of_values.unsqueeze(-2), vectors.mT)


def through_vectors(values: Tensor, vectors: Tensor, of_vectors: Tensor) -> Tensor:
    """Return the gradient of symmetric matrices from that of their eigenvectors.

    It appears in second derivatives. Pairs of eigenvalues that are as good as equal contribute
    nothing to it.
    """
    if values.shape[-1] == 0:
        return torch.zeros_like(vectors)
    difference = values.unsqueeze(-2) - values.unsqueeze(-1)
    largest = values.abs().amax(-1, keepdim=True).unsqueeze(-1)
    is_pair = difference.abs() > rounding_tolerance(values.dtype) * largest
    inverse = torch.where(is_pair, 1 / torch.where(is_pair, difference, 1.0), 0.0)
    inner = inverse * matmul(vectors.mT, of_vectors)
    gradient = matmul(matmul(vectors, inner), vectors.mT)
    return (gradient + gradient.mT) / 2


@quick_to_apply
class _Constant(torch.autograd.Function):
    """Eigenvectors that a caller sees, which have no gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(vectors: Tensor) -> Tensor:
        return vectors.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        raise RuntimeError(
            "selkern.linalg.eigh has no gradient through its eigenvectors: use the eigenvalues"
            " alone, selkern.eigenspectrum, or torch.linalg.eigh; detach() eigenvectors that are"
            " meant as constants"
        )


@torch.compiler.allow_in_graph
def eigvalsh(a: Tensor) -> Tensor:
    return _Eigh.apply(a)[0] if needs_gradient(a) else solve_values(a)


@torch.compiler.allow_in_graph
def eigh(a: Tensor) -> tuple[Tensor, Tensor]:
    if not needs_gradient(a):
        return solve(a)
    values, vectors = _Eigh.apply(a)
    return values, _Constant.apply(vectors)
