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


def _faster(rivals: tuple[str, ...], own: str, times: float = 1.0) -> Target:
    where = IN_A_GRAPH.replace(",", "") if own.endswith(IN_A_GRAPH) else ""
    return Target(f"fastest of PyTorch and {CUPY} / selkern{where}", _over(rivals, own), times)


def _faster_solver(times: float) -> tuple[Target, ...]:
    rivals = (linalg.TORCH, CUPY)
    return tuple(_faster(rivals, linalg.FUSED + mode, times) for mode in ("", IN_A_GRAPH))


class _OnGPU:
    rounds = 7
    quick_rounds = 5
    omitted = frozenset({linalg.NUMPY})


class CudaEigenvalues(_OnGPU, linalg.Eigenvalues):
    @staticmethod
    def targets_of(size: int) -> tuple[Target, ...]:
        """What is to be reached with matrices of a size."""
        return _faster_solver(10.0 if size <= 32 else 5.0)

    @contender(CUPY)
    def of_cupy(self) -> Outcome:
        return Outcome(vendor.eigvalsh(self.matrices))


class CudaEigenpairs(_OnGPU, linalg.Eigenpairs):
    @staticmethod
    def targets_of(size: int) -> tuple[Target, ...]:
        """What is to be reached with matrices of a size."""
        return _faster_solver(4.0 if size <= 32 else 3.0)

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


_WITHIN_300_US = Target(
    "spectral_loss in a graph",
    lambda comparison: comparison.milliseconds(spectrum.LOSS + IN_A_GRAPH),
    0.3,
    at_least=False,
    unit="ms",
)


class CudaEigenspectrum(spectrum.Eigenspectrum):
    @staticmethod
    def targets_of(shape: tuple[int, ...], bound: float) -> tuple[Target, ...]:
        """What is to be reached with samples of a shape."""
        faster = tuple(_faster(_RIVALS, spectrum.FUSED + mode) for mode in ("", IN_A_GRAPH))
        return (_WITHIN_300_US, *faster) if shape == (128, 2000) else faster

    @contender(CAREFUL_BY_CUPY)
    def careful_by_cupy(self) -> Outcome:
        return self._with_gradient(_careful_by_cupy(self.x))


class CudaLargeEigenspectrum(spectrum.LargeEigenspectrum):
    @staticmethod
    def targets_of(shape: tuple[int, ...], bound: float) -> tuple[Target, ...]:
        """What is to be reached with samples of a shape."""
        return (_faster(_RIVALS, spectrum.FUSED),)

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
