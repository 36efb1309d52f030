"""The penalty of covariance eigenspectra, forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

import selkern

from ..compare import Comparison, Quartiles
from ..losses import careful_spectrum, covariance_spectrum, gram_spectrum, power_law_page
from ..work import Outcome, Target, Work, contender
from . import inputs

__all__ = ["Eigenspectrum", "LargeEigenspectrum", "eigenspectrum_works"]

FUSED = "selkern.eigenspectrum"
LOSS = "selkern.spectral_loss"
PAGE = "eigvalsh of the covariance"
GRAM = "eigvalsh of the Gram matrix"
CAREFUL = "eager careful"
REFERENCE = "selkern.reference"
COMPILED_PAGE = f"{PAGE}, compiled"
COMPILED_GRAM = f"{GRAM}, compiled"
COMPILED_CAREFUL = f"{CAREFUL}, compiled"

Penalty = Callable[[Tensor], Tensor]


def _page(x: Tensor) -> Tensor:
    return power_law_page(covariance_spectrum(x), x.shape[-1]).mean()


def _gram(x: Tensor) -> Tensor:
    return power_law_page(gram_spectrum(x), x.shape[-1]).mean()


def _careful(x: Tensor) -> Tensor:
    return power_law_page(careful_spectrum(x), x.shape[-1]).mean()


class Eigenspectrum(Work):
    rounds = 20
    quick_rounds = 5
    gradient_tolerance = 1e-4
    shape: ClassVar[tuple[int, ...]]

    @staticmethod
    def targets_of(shape: tuple[int, ...], bound: float) -> tuple[Target, ...]:
        """What is to be reached with samples of a shape; `bound` on the CPU, over the page."""
        return (
            Target("eigvalsh of the covariance / selkern", _over_page, bound),
            Target("fastest careful version / selkern", _over_careful, 1.0),
        )

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        source = inputs.generator(device=device)
        self.x = inputs.normal(*self.shape, source=source).requires_grad_()

    @contender(FUSED, "selkern", fits_graph=True)
    def fused(self) -> Outcome:
        spectrum = selkern.eigenspectrum(self.x)
        penalty = selkern.power_law_penalty(spectrum, width=self.shape[-1])
        return self._with_gradient(penalty.mean())

    @contender(LOSS, "selkern", fits_graph=True)
    def fused_loss(self) -> Outcome:
        return self._with_gradient(selkern.spectral_loss(self.x))

    @contender(PAGE)
    def page(self) -> Outcome:
        return self._with_gradient(_page(self.x))

    @contender(GRAM)
    def gram(self) -> Outcome:
        return self._with_gradient(_gram(self.x))

    @contender(CAREFUL)
    def careful(self) -> Outcome:
        return self._with_gradient(_careful(self.x))

    @contender(REFERENCE)
    def reference(self) -> Outcome:
        spectrum = selkern.reference.eigenspectrum(self.x)
        penalty = selkern.reference.power_law_penalty(spectrum, width=self.shape[-1])
        return self._with_gradient(penalty.mean())

    @contender(COMPILED_PAGE, compiled=True)
    def compiled_page(self) -> Outcome:
        return self._with_gradient(self._compiled[_page](self.x))

    @contender(COMPILED_GRAM, compiled=True)
    def compiled_gram(self) -> Outcome:
        return self._with_gradient(self._compiled[_gram](self.x))

    @contender(COMPILED_CAREFUL, compiled=True)
    def compiled_careful(self) -> Outcome:
        return self._with_gradient(self._compiled[_careful](self.x))

    @cached_property
    def _compiled(self) -> dict[Penalty, Penalty]:
        penalties = (_page, _gram, _careful)
        return {penalty: torch.compile(penalty, dynamic=False) for penalty in penalties}

    def _with_gradient(self, penalty: Tensor) -> Outcome:
        return Outcome(penalty, torch.autograd.grad(penalty, self.x))

    def expected(self, label: str) -> Outcome:
        return self._expected

    @cached_property
    def _expected(self) -> Outcome:
        x = self.x.detach().double().requires_grad_()
        penalty = _page(x)
        return Outcome(penalty.detach(), torch.autograd.grad(penalty, x))


class LargeEigenspectrum(Eigenspectrum):
    """One matrix beyond what our own kernels hold: torch's solver, which waits for a GPU."""

    rounds = 7
    quick_rounds = 3

    @contender(FUSED, "selkern")
    def fused(self) -> Outcome:
        return super().fused()

    @contender(LOSS, "selkern")
    def fused_loss(self) -> Outcome:
        return super().fused_loss()


def _over_page(comparison: Comparison) -> Quartiles:
    return comparison.ratio(PAGE, FUSED)


def _over_careful(comparison: Comparison) -> Quartiles:
    rivals = (GRAM, CAREFUL, REFERENCE)
    return comparison.ratio(comparison.fastest(rivals), FUSED)


# Shapes of the samples by units, and how many times faster than the page to be.
SHAPES: dict[tuple[int, ...], float] = {
    (128, 2000): 150.0,
    (128, 1000): 30.0,
    (256, 128, 32): 6.0,
    (256, 128, 16): 6.0,
    (64, 128, 64): 4.0,
    (16, 256, 128): 3.0,
}
LARGE_SHAPES: dict[tuple[int, ...], float] = {(2048, 1000): 1.0, (4096, 2000): 1.0}
# Elsewhere compiling would take long, and show the same.
COMPILED_SHAPES = ((128, 2000), (256, 128, 32), (16, 256, 128), (2048, 1000))


def eigenspectrum_works(
    kind: type[Eigenspectrum] = Eigenspectrum,
    large_kind: type[Eigenspectrum] = LargeEigenspectrum,
) -> list[type[Eigenspectrum]]:
    """A work for each shape."""
    works = [_work(kind, shape, bound) for shape, bound in SHAPES.items()]
    return works + [_work(large_kind, shape, bound) for shape, bound in LARGE_SHAPES.items()]


def _work(kind: type[Eigenspectrum], shape: tuple[int, ...], bound: float) -> type[Eigenspectrum]:
    *batch, samples, units = shape
    omitted = set(kind.omitted)
    if batch:
        omitted.add(LOSS)
    if samples >= units:
        omitted |= {GRAM, COMPILED_GRAM}
    if shape not in COMPILED_SHAPES:
        omitted |= {COMPILED_PAGE, COMPILED_GRAM, COMPILED_CAREFUL}
    members: dict[str, Any] = {
        "name": f"eigenspectrum_{'x'.join(map(str, shape))}",
        "title": f"penalty of the eigenspectrum of {f'{batch[0]} times ' if batch else ''}"
        f"[{samples}, {units}], forward and backward",
        "shape": shape,
        "omitted": frozenset(omitted),
    }
    members["targets"] = kind.targets_of(shape, bound)
    return type(kind.__name__, (kind,), members)
