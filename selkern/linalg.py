"""Eigenvalues and eigenvectors of batches of symmetric matrices."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from selkern import _library, _linalg_autograd, reference
from selkern import _spectrum_checks as checks
from selkern._layout import result_dtype


class EighResult(NamedTuple):
    """Eigenvalues ``[..., M]``, ascending, and eigenvectors ``[..., M, M]``, in columns."""

    eigenvalues: Tensor
    eigenvectors: Tensor


def eigvalsh(a: Tensor) -> Tensor:
    r"""Eigenvalues of symmetric matrices, ascending.

    As :func:`torch.linalg.eigvalsh`. The spectra of :func:`selkern.eigenspectrum` and
    :mod:`selkern.analysis` are descending: ``eigvalsh(a).flip(-1)``.

    Batches of small matrices are solved by one kernel: on the CPU a matrix in each lane of a
    vector, on CUDA one in each warp or block, without a synchronisation. Larger ones go to torch.
    The gradient, :math:`V \operatorname{diag}(g) V^\top`, is finite at repeated eigenvalues; second
    derivatives are exact for distinct eigenvalues, and take pairs closer than 2e-6 (float64: 1e-12)
    of the largest for equal.

    Parameters
    ----------
    a : Tensor
        Symmetric matrices ``[..., M, M]``; float16, bfloat16, float32 or float64. Only the lower
        triangle is read.

    Returns
    -------
    Tensor
        Eigenvalues ``[..., M]``, float64 for float64 ``a`` and float32 otherwise; NaN for a matrix
        that holds NaN or infinity. Vectors are computed only where a gradient may be asked for.

    Raises
    ------
    TypeError
        If ``a`` is not a floating tensor.
    ValueError
        If its last two axes differ.

    Examples
    --------
    >>> eigvalsh(torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
    tensor([1., 3.])
    """
    checks.matrices("a", a)
    if not _library.COMPILED:
        return reference.linalg.eigvalsh(a)
    return _linalg_autograd.eigvalsh(a.to(result_dtype(a.dtype)))


def eigh(a: Tensor) -> EighResult:
    """Eigenvalues, ascending, and eigenvectors of symmetric matrices.

    As :func:`torch.linalg.eigh`, by the kernels of :func:`eigvalsh`. Only the eigenvalues have a
    gradient; the sign of a vector is arbitrary, and so is the choice of vectors for equal
    eigenvalues.

    Parameters
    ----------
    a : Tensor
        Symmetric matrices ``[..., M, M]``, as for :func:`eigvalsh`.

    Returns
    -------
    EighResult
        ``eigenvalues`` ``[..., M]`` and ``eigenvectors`` ``[..., M, M]``, in columns.

    Raises
    ------
    TypeError
        If ``a`` is not a floating tensor.
    ValueError
        If its last two axes differ.
    RuntimeError
        In the backward, if a gradient arrives at the eigenvectors.

    Examples
    --------
    >>> eigenvalues, eigenvectors = eigh(torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
    >>> eigenvectors @ torch.diag(eigenvalues) @ eigenvectors.T
    tensor([[2.0000, 1.0000],
            [1.0000, 2.0000]])
    """
    checks.matrices("a", a)
    if not _library.COMPILED:
        return EighResult(*reference.linalg.eigh(a))
    return EighResult(*_linalg_autograd.eigh(a.to(result_dtype(a.dtype))))


__all__ = ["EighResult", "eigh", "eigvalsh"]
