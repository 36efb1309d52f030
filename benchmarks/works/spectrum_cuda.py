"""Spectra and small eigenproblems on a GPU, with the vendor's batched solver as a rival."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ..compare import Comparison, Quartiles
from ..losses import careful_spectrum, power_law_page
from ..work import IN_A_GRAPH, Outcome, Target, contender
from . import frozen_basis, linalg, spectrum, vendor
from .mlp_step import MLPStep

__all__ = ["FROZEN_BASIS", "MORE_SOLVERS", "SOLVERS", "SPECTRA", "STEPS"]

CUPY = "CuPy"
BATCHES = (16, 64, 256, 1024)
MAIN_BATCH = 256


def _over(rivals: tuple[str, ...], own: str) -> Callable[[Comparison], Quartiles]:
    return lambda comparison: comparison.ratio(comparison.fastest(rivals), own)


def _never_slower(rivals: tuple[str, ...], own: str) -> Target:
    where = IN_A_GRAPH.replace(",", "") if own.endswith(IN_A_GRAPH) else ""
    return Target(f"fastest of PyTorch and {CUPY} / selkern{where}", _over(rivals, own), 1.0)


class _OnGPU:
    rounds = 7
    quick_rounds = 5
    omitted = frozenset({linalg.NUMPY})
    targets = tuple(
        _never_slower((linalg.TORCH, CUPY), linalg.FUSED + mode) for mode in ("", IN_A_GRAPH)
    )


class CudaEigenvalues(_OnGPU, linalg.Eigenvalues):
    @contender(CUPY)
    def of_cupy(self) -> Outcome:
        return Outcome(vendor.eigvalsh(self.matrices))


class CudaEigenpairs(_OnGPU, linalg.Eigenpairs):
    @contender(CUPY)
    def of_cupy(self) -> Outcome:
        return self._outcome_of(*vendor.eigh(self.matrices))


CAREFUL_BY_CUPY = f"{spectrum.CAREFUL}, {CUPY}"
_RIVALS = (
    spectrum.PAGE,
    spectrum.GRAM,
    spectrum.CAREFUL,
    spectrum.REFERENCE,
    CAREFUL_BY_CUPY,
)


def _careful_by_cupy(x: Tensor) -> Tensor:
    return power_law_page(careful_spectrum(x, vendor.eigh), x.shape[-1]).mean()


class CudaEigenspectrum(spectrum.Eigenspectrum):
    targets = tuple(_never_slower(_RIVALS, spectrum.FUSED + mode) for mode in ("", IN_A_GRAPH))

    @contender(CAREFUL_BY_CUPY)
    def careful_by_cupy(self) -> Outcome:
        return self._with_gradient(_careful_by_cupy(self.x))


class CudaLargeEigenspectrum(spectrum.LargeEigenspectrum):
    targets = (_never_slower(_RIVALS, spectrum.FUSED),)

    @contender(CAREFUL_BY_CUPY)
    def careful_by_cupy(self) -> Outcome:
        return self._with_gradient(_careful_by_cupy(self.x))


_SPECTRA = spectrum.eigenspectrum_works(CudaEigenspectrum, CudaLargeEigenspectrum)
_SOLVERS = linalg.eigensolver_works(CudaEigenvalues, CudaEigenpairs, BATCHES)

SPECTRA = tuple(_SPECTRA)
SOLVERS = tuple(work for work in _SOLVERS if work.batch == MAIN_BATCH)
MORE_SOLVERS = tuple(work for work in _SOLVERS if work.batch != MAIN_BATCH)
FROZEN_BASIS = (frozen_basis.FrozenBasis1000, frozen_basis.FrozenBasis2000)
STEPS = (MLPStep,)
