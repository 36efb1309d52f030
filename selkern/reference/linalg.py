"""Eigenvalues and eigenvectors of symmetric matrices."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from selkern import _spectrum_checks as checks
from selkern._layout import result_dtype

ROUNDING = {torch.float32: 2e-6, torch.float64: 1e-12}


class EighResult(NamedTuple):
    """What :func:`eigh` returns."""

    eigenvalues: Tensor
    eigenvectors: Tensor


def eigvalsh(a: Tensor) -> Tensor:
    r"""Eigenvalues of symmetric matrices, in ascending order.

    .. math:: A v_i = \lambda_i v_i, \qquad
              \frac{\partial f}{\partial A}
                  = V \operatorname{diag}(\partial f / \partial \lambda) V^\top

    Second derivatives take no account of pairs of eigenvalues that are closer than 2e-6 (float64:
    1e-12) of the largest.

    Parameters
    ----------
    a : Tensor
        Symmetric matrices ``[..., M, M]``, of which the lower triangle is read.

    Returns
    -------
    Tensor
        ``[..., M]``, float64 for float64 `a` and float32 otherwise. NaN for a matrix that holds
        NaN or infinity.

    Examples
    --------
    >>> eigvalsh(torch.tensor([[2.0, 0.0], [1.0, 2.0]]))
    tensor([1., 3.])
    """
    checks.matrices("a", a)
    a = a.to(result_dtype(a.dtype))
    return eigenvalues(a, a.dtype)


def eigh(a: Tensor) -> EighResult:
    r"""Eigenvalues of symmetric matrices, in ascending order, and eigenvectors.

    .. math:: A = V \operatorname{diag}(\lambda) V^\top, \qquad V^\top V = I

    Parameters
    ----------
    a : Tensor
        Symmetric matrices ``[..., M, M]``, of which the lower triangle is read.

    Returns
    -------
    eigenvalues : Tensor
        ``[..., M]``, as :func:`eigvalsh` gives them.
    eigenvectors : Tensor
        ``[..., M, M]``, in columns. They have no gradient.

    Raises
    ------
    RuntimeError
        If a gradient arrives at the eigenvectors.

    Examples
    --------
    >>> eigh(torch.tensor([[3.0, 0.0], [0.0, 1.0]])).eigenvalues
    tensor([1., 3.])
    """
    checks.matrices("a", a)
    values, vectors = _with_vectors(a.to(result_dtype(a.dtype)))
    return EighResult(values, vectors)


class _Eigh(torch.autograd.Function):
    """Both outputs are differentiable, because the backward is a function of the vectors."""

    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor) -> tuple[Tensor, Tensor]:
        is_finite, filled = _finite(a)
        values, vectors = torch.linalg.eigh(filled)
        return (
            torch.where(is_finite[..., None], values, torch.nan),
            torch.where(is_finite[..., None, None], vectors, torch.nan),
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*output)

    @staticmethod
    def backward(
        ctx: Any, grad_values: Tensor | None, grad_vectors: Tensor | None
    ) -> Tensor | None:
        values, vectors = ctx.saved_tensors
        if grad_vectors is None:
            if grad_values is None:
                return None
            return (vectors * grad_values.unsqueeze(-2)) @ vectors.mT
        inner = _inverse_gaps(values) * (vectors.mT @ grad_vectors)
        if grad_values is not None:
            inner = inner + torch.diag_embed(grad_values)
        grad = vectors @ inner @ vectors.mT
        return (grad + grad.mT) / 2


class _WithoutGradient(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(vectors: Tensor) -> Tensor:
        return vectors.view_as(vectors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> None:
        if grad is not None:
            raise RuntimeError(
                "eigenvectors have no gradient, which would divide by differences of eigenvalues: "
                "use a function of the eigenvalues, or torch.linalg.eigh"
            )


def _inverse_gaps(values: Tensor) -> Tensor:
    """Return ``1 / (values[j] - values[i])``, and 0 for pairs that rounding cannot tell apart."""
    gaps = values.unsqueeze(-2) - values.unsqueeze(-1)
    if not gaps.numel():
        return gaps
    largest = values.detach().abs().amax(-1)[..., None, None]
    is_close = gaps.abs() <= ROUNDING[values.dtype] * largest
    return torch.where(is_close, 0.0, 1 / torch.where(is_close, 1.0, gaps))


def _finite(a: Tensor) -> tuple[Tensor, Tensor]:
    """Tell which matrices are finite, and put zeros in place of the others.

    For NaN, torch's solvers raise or spoil the whole batch.
    """
    a = a.tril()
    is_finite = a.isfinite().flatten(-2).all(-1)
    return is_finite, torch.where(is_finite[..., None, None], a, 0.0)


@torch.compiler.allow_in_graph
def eigenvalues(a: Tensor, values_only_dtype: torch.dtype) -> Tensor:
    """Return ascending eigenvalues, with vectors only where a gradient can be asked for.

    Parameters
    ----------
    a : Tensor
        Matrices ``[..., M, M]``, float32 or float64.
    values_only_dtype : torch.dtype
        What to compute in without vectors, where torch's solver is less accurate than with them.
    """
    # A gradient that a transform of torch.func will ask for need not show in requires_grad.
    may_need_gradient = a.requires_grad or torch._C._functorch.is_functorch_wrapped_tensor(a)
    if torch.is_grad_enabled() and may_need_gradient:
        return _Eigh.apply(a)[0]
    is_finite, filled = _finite(a)
    values = torch.linalg.eigvalsh(filled.to(values_only_dtype)).to(a.dtype)
    return torch.where(is_finite.unsqueeze(-1), values, torch.nan)


@torch.compiler.allow_in_graph
def _with_vectors(a: Tensor) -> tuple[Tensor, Tensor]:
    values, vectors = _Eigh.apply(a)
    return values, _WithoutGradient.apply(vectors)


__all__ = ["EighResult", "eigh", "eigvalsh"]
