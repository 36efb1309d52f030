"""A whole training step of a wide MLP, with and without the spectral regularizer."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

import selkern

from ..losses import (
    Penalty,
    covariance_eigenvectors,
    eigenvalue_loss,
    frozen_loss,
    published_loss,
    vectorised_loss,
)
from ..work import Outcome, Target, contender
from .network_step import PLAIN, NetworkStep, Regularizer, outputs_of

__all__ = ["MLPStep"]

BETA = 0.1
PIXELS = 784
HIDDEN_LAYERS = 3

EXACT = "selkern.SpectralRegularizer(mode='exact')"
FROZEN = "selkern.SpectralRegularizer(mode='frozen')"
PAGE = "eigvalsh of the covariance"
PUBLISHED = "published code"
VECTORISED = "published code, vectorised"
CAREFUL = "frozen basis, eager careful"

RIVALS: dict[str, Penalty] = {
    PAGE: eigenvalue_loss,
    PUBLISHED: published_loss,
    VECTORISED: vectorised_loss,
    CAREFUL: frozen_loss,
}
MODES = {EXACT: "exact", FROZEN: "frozen"}


class _Rival:
    """Sums a penalty over what a model's tanh modules put out."""

    def __init__(self, model: nn.Module, penalty: Penalty, bases: Sequence[Tensor]) -> None:
        self.penalty = penalty
        self.bases = bases
        self.activations = outputs_of(model, nn.Tanh)

    def __call__(self, labels: Tensor) -> Tensor:
        pairs = zip(self.activations, self.bases, strict=True)
        penalty = torch.stack([self.penalty(x, basis) for x, basis in pairs]).mean()
        self.activations.clear()
        return BETA * penalty


def _added(quantity: str, own: str, rival: str, percent: float) -> Target:
    return Target(
        quantity,
        lambda comparison: comparison.added_share(own, rival, PLAIN),
        percent,
        at_least=False,
        unit="%",
    )


class MLPStep(NetworkStep):
    name = "mlp_step"
    title = "whole training step of an MLP with 3 x 1,000 tanh units, batch 1,500 of 784, Adam"
    rounds = 12
    quick_rounds = 3
    gradient_tolerance = 1e-4
    samples = 1500
    image_shape = (PIXELS,)
    activation = nn.Tanh
    units: ClassVar[int] = 1000
    targets = (
        _added(
            "added by the frozen mode, of what the published code adds", FROZEN, PUBLISHED, 25.0
        ),
        _added("added by the frozen mode, of what eager careful adds", FROZEN, CAREFUL, 100.0),
        _added(
            "added by the exact mode, of what eigvalsh of the covariance adds", EXACT, PAGE, 100.0
        ),
    )

    def network(self) -> nn.Module:
        widths = [PIXELS, *[self.units] * HIDDEN_LAYERS]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            linear = nn.Linear(before, after)
            # Far enough from linear that no variance is as small as rounding.
            nn.init.xavier_normal_(linear.weight, nn.init.calculate_gain("tanh"))
            layers += [linear, nn.Tanh()]
        return nn.Sequential(*layers, nn.Linear(self.units, self.num_classes))

    def optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=1e-4, amsgrad=True)

    def regularizer(self, label: str, model: nn.Module) -> Regularizer | None:
        if label in RIVALS:
            return _Rival(model, RIVALS[label], self._bases)
        if label not in MODES:
            return None
        regularizer = selkern.SpectralRegularizer(model, beta=BETA, mode=MODES[label])
        if label == FROZEN:
            regularizer.refresh([(self.images, self.labels)])
        return lambda labels: regularizer()

    def penalty(self, activations: Sequence[Tensor]) -> Tensor:
        # A basis of this very batch gives its eigenvalues.
        return BETA * torch.stack([eigenvalue_loss(x) for x in activations]).mean()

    def as_vectors(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """The gradient of each linear module as one vector: that of a bias is too small alone."""
        pairs = zip(gradients[::2], gradients[1::2], strict=True)
        return [torch.cat([weight.flatten(), bias]) for weight, bias in pairs]

    @cached_property
    def _bases(self) -> list[Tensor]:
        """Eigenvectors of the covariance of each hidden layer at the start, taken in float64."""
        model = copy.deepcopy(self.initial).double()
        activations = outputs_of(model, nn.Tanh)
        with torch.no_grad():
            model(self.images.double())
        return [covariance_eigenvectors(x) for x in activations]

    @contender(EXACT, "selkern")
    def exact_step(self) -> Outcome:
        return self._step(EXACT)

    @contender(FROZEN, "selkern")
    def frozen_step(self) -> Outcome:
        return self._step(FROZEN)

    @contender(PAGE)
    def page_step(self) -> Outcome:
        return self._step(PAGE)

    @contender(PUBLISHED)
    def published_step(self) -> Outcome:
        return self._step(PUBLISHED)

    @contender(VECTORISED)
    def vectorised_step(self) -> Outcome:
        return self._step(VECTORISED)

    @contender(CAREFUL)
    def careful_step(self) -> Outcome:
        return self._step(CAREFUL)
