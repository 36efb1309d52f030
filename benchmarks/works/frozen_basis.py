"""The penalty of the variances along a frozen basis, forward and backward."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

import selkern

from ..losses import Penalty, frozen_loss, published_loss, vectorised_loss
from ..work import Outcome, Target, Work, contender
from . import inputs

__all__ = ["FrozenBasis", "FrozenBasis1000", "FrozenBasis2000"]

FLOOR = "two matrix products"
FUSED = "selkern.spectral_loss"
PUBLISHED = "published code"
VECTORISED = "published code, vectorised"
CAREFUL = "eager careful"
REFERENCE = "selkern.reference"

# Of the variances: with 1/n itself ranks would lie close to where the penalty has a kink.
EXPONENT = 0.8


class FrozenBasis(Work):
    rounds = 30
    quick_rounds = 5
    samples: ClassVar[int]
    units: ClassVar[int]
    targets = (
        Target(
            "spectral_loss / two matrix products",
            lambda comparison: comparison.ratio(FUSED, FLOOR),
            1.05,
            at_least=False,
        ),
        Target(
            "eager careful / spectral_loss",
            lambda comparison: comparison.ratio(CAREFUL, FUSED),
            1.0,
        ),
        Target(
            "published code, vectorised / spectral_loss",
            lambda comparison: comparison.ratio(VECTORISED, FUSED),
            1.0,
        ),
    )

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        source = inputs.generator(device=device)
        self.basis = torch.linalg.qr(inputs.normal(self.units, self.units, source=source)).Q
        self.basis = self.basis.contiguous()
        deviations = torch.arange(1, self.units + 1, device=device) ** (-EXPONENT / 2)
        along_basis = inputs.normal(self.samples, self.units, source=source)
        # No two nearly alike: rounding would change their order, which the gradient depends on.
        along_basis *= deviations / along_basis.std(0)
        self.x = (along_basis @ self.basis.T).requires_grad_()
        self.gradient = inputs.normal(self.samples, self.units, source=source)

    @contender(FLOOR, "floor", fits_graph=True)
    def products(self) -> Outcome:
        x = self.x.detach()
        return Outcome(outputs=[x @ self.basis, self.gradient @ self.basis.T])

    @contender(FUSED, "selkern", fits_graph=True)
    def fused(self) -> Outcome:
        return self._with_gradient(selkern.spectral_loss(self.x, basis=self.basis))

    @contender(PUBLISHED)
    def published(self) -> Outcome:
        return self._with_gradient(published_loss(self.x, self.basis))

    @contender(VECTORISED, fits_graph=True)
    def vectorised(self) -> Outcome:
        return self._with_gradient(vectorised_loss(self.x, self.basis))

    @contender(CAREFUL, fits_graph=True)
    def careful(self) -> Outcome:
        return self._with_gradient(frozen_loss(self.x, self.basis))

    @contender(REFERENCE, fits_graph=True)
    def reference(self) -> Outcome:
        loss = selkern.reference.spectral_loss(self.x, basis=self.basis)
        return self._with_gradient(loss)

    @contender(f"{VECTORISED}, compiled", compiled=True)
    def compiled_vectorised(self) -> Outcome:
        return self._with_gradient(self._compiled[vectorised_loss](self.x, self.basis))

    @contender(f"{CAREFUL}, compiled", compiled=True)
    def compiled_careful(self) -> Outcome:
        return self._with_gradient(self._compiled[frozen_loss](self.x, self.basis))

    @cached_property
    def _compiled(self) -> dict[Penalty, Penalty]:
        penalties = (vectorised_loss, frozen_loss)
        return {penalty: torch.compile(penalty, dynamic=False) for penalty in penalties}

    def _with_gradient(self, penalty: Tensor) -> Outcome:
        return Outcome(penalty, torch.autograd.grad(penalty, self.x))

    def expected(self, label: str) -> Outcome:
        return self._expected_products if label == FLOOR else self._expected_penalty

    @cached_property
    def _expected_products(self) -> Outcome:
        basis = self.basis.double()
        products = [self.x.detach().double() @ basis, self.gradient.double() @ basis.T]
        return Outcome(outputs=products)

    @cached_property
    def _expected_penalty(self) -> Outcome:
        x = self.x.detach().double().requires_grad_()
        penalty = vectorised_loss(x, self.basis.double())
        return Outcome(penalty.detach(), torch.autograd.grad(penalty, x))


class FrozenBasis1000(FrozenBasis):
    name = "frozen_basis_1500x1000"
    title = "penalty along a frozen basis, [1500, 1000], forward and backward"
    samples, units = 1500, 1000


class FrozenBasis2000(FrozenBasis):
    name = "frozen_basis_3500x2000"
    title = "penalty along a frozen basis, [3500, 2000], forward and backward"
    samples, units = 3500, 2000
    rounds = 15
    quick_rounds = 3
