"""A whole training step of a wide MLP, with and without the spectral regularizer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import selkern

from ..losses import (
    covariance_spectrum,
    frozen_spectrum,
    power_law_page,
    published_penalty,
    published_spectrum,
)
from ..work import Outcome, Target, Work, contender
from . import inputs

__all__ = ["MLPStep"]

BETA = 0.1
NUM_CLASSES = 10
PIXELS = 784
HIDDEN_LAYERS = 3

PLAIN = "plain"
PLAIN_AGAIN = "plain again"
EXACT = "selkern.SpectralRegularizer(mode='exact')"
FROZEN = "selkern.SpectralRegularizer(mode='frozen')"
PAGE = "eigvalsh of the covariance"
PUBLISHED = "published code"
VECTORISED = "published code, vectorised"
CAREFUL = "frozen basis, eager careful"

Penalty = Callable[[Tensor, Tensor], Tensor]
"""Penalty of activations [N, D], given a basis [D, D]."""


def _page(x: Tensor, basis: Tensor) -> Tensor:
    return power_law_page(covariance_spectrum(x), x.shape[1])


def _published(x: Tensor, basis: Tensor) -> Tensor:
    return published_penalty(published_spectrum(x, basis), x.shape[1])


def _vectorised(x: Tensor, basis: Tensor) -> Tensor:
    return power_law_page(published_spectrum(x, basis), x.shape[1])


def _careful(x: Tensor, basis: Tensor) -> Tensor:
    return power_law_page(frozen_spectrum(x, basis), x.shape[1])


RIVALS: dict[str, Penalty] = {
    PAGE: _page,
    PUBLISHED: _published,
    VECTORISED: _vectorised,
    CAREFUL: _careful,
}
MODES = {EXACT: "exact", FROZEN: "frozen"}


class _Rival:
    """Sums a penalty over what a model's tanh modules put out."""

    def __init__(self, model: nn.Module, penalty: Penalty, bases: Sequence[Tensor]) -> None:
        self.penalty = penalty
        self.bases = bases
        self.activations = hidden_outputs(model)

    def __call__(self) -> Tensor:
        pairs = zip(self.activations, self.bases, strict=True)
        penalty = torch.stack([self.penalty(x, basis) for x, basis in pairs]).mean()
        self.activations.clear()
        return BETA * penalty


def hidden_outputs(model: nn.Module) -> list[Tensor]:
    """What the tanh modules will put out, forward after forward."""
    outputs: list[Tensor] = []
    for module in model.modules():
        if isinstance(module, nn.Tanh):
            module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    return outputs


class _Trainer:
    """One of the networks, all of which start from the same weights."""

    def __init__(self, model: nn.Module, regularizer: Callable[[], Tensor] | None) -> None:
        self.model = model
        self.regularizer = regularizer
        self.parameters = list(model.parameters())
        self.optimizer = torch.optim.Adam(self.parameters, lr=1e-4, amsgrad=True)
        self.losses: list[Tensor] = []

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        loss = F.cross_entropy(self.model(images), labels)
        return loss if self.regularizer is None else loss + self.regularizer()

    def step(self, images: Tensor, labels: Tensor) -> None:
        loss = self.loss(images, labels)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()
        self.losses.append(loss.detach())


class MLPStep(Work):
    name = "mlp_step"
    title = "whole training step of an MLP with 3 x 1,000 tanh units, batch 1,500 of 784, Adam"
    rounds = 12
    quick_rounds = 3
    gradient_tolerance = 1e-4
    samples: ClassVar[int] = 1500
    units: ClassVar[int] = 1000
    targets = (
        Target(
            "added by the frozen mode, of what the published code adds",
            lambda comparison: comparison.added_share(FROZEN, PUBLISHED, PLAIN),
            25.0,
            at_least=False,
            unit="%",
        ),
        Target(
            "added by the frozen mode, of what eager careful adds",
            lambda comparison: comparison.added_share(FROZEN, CAREFUL, PLAIN),
            100.0,
            at_least=False,
            unit="%",
        ),
        Target(
            "added by the exact mode, of what eigvalsh of the covariance adds",
            lambda comparison: comparison.added_share(EXACT, PAGE, PLAIN),
            100.0,
            at_least=False,
            unit="%",
        ),
    )

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        source = inputs.generator(device=device)
        self.images = inputs.normal(self.samples, PIXELS, source=source)
        self.labels = inputs.labels(self.samples, NUM_CLASSES, source)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.initial = self._network().to(self.device)
        self.trainers: dict[str, _Trainer] = {}

    def _network(self) -> nn.Module:
        widths = [PIXELS, *[self.units] * HIDDEN_LAYERS]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            linear = nn.Linear(before, after)
            # Far enough from linear that no variance is as small as rounding.
            nn.init.xavier_normal_(linear.weight, nn.init.calculate_gain("tanh"))
            layers += [linear, nn.Tanh()]
        return nn.Sequential(*layers, nn.Linear(self.units, NUM_CLASSES))

    def trainer(self, label: str) -> _Trainer:
        """The network of a contender, made when it first runs."""
        if label not in self.trainers:
            model = copy.deepcopy(self.initial)
            self.trainers[label] = _Trainer(model, self._regularizer(label, model))
        return self.trainers[label]

    def _regularizer(self, label: str, model: nn.Module) -> Callable[[], Tensor] | None:
        if label in RIVALS:
            return _Rival(model, RIVALS[label], self._bases)
        if label not in MODES:
            return None
        regularizer = selkern.SpectralRegularizer(model, beta=BETA, mode=MODES[label])
        if label == FROZEN:
            regularizer.refresh([(self.images, self.labels)])
        return regularizer

    @cached_property
    def _bases(self) -> list[Tensor]:
        """Eigenvectors of the covariance of each hidden layer at the start, taken in float64."""
        model = copy.deepcopy(self.initial).double()
        activations = hidden_outputs(model)
        with torch.no_grad():
            model(self.images.double())
        return [torch.linalg.eigh(torch.cov(x.T)).eigenvectors.float() for x in activations]

    @contender(PLAIN, "plain")
    def plain_step(self) -> Outcome:
        return self._step(PLAIN)

    @contender(PLAIN_AGAIN, "noise")
    def plain_step_again(self) -> Outcome:
        return self._step(PLAIN_AGAIN)

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

    def _step(self, label: str) -> Outcome:
        self.trainer(label).step(self.images, self.labels)
        return Outcome()

    def losses(self, label: str) -> dict[str, float]:
        seen = self.trainer(label).losses
        return {"first": float(seen[0]), "last": float(seen[-1])} if seen else {}

    def outcome(self, label: str) -> Outcome:
        trainer = self.trainer(label)
        loss = trainer.loss(self.images, self.labels)
        return Outcome(loss.detach(), _gradients(loss, trainer.model))

    def expected(self, label: str) -> Outcome:
        # A basis of this very batch gives its eigenvalues.
        return self._expected[0 if label in (PLAIN, PLAIN_AGAIN) else 1]

    @cached_property
    def _expected(self) -> tuple[Outcome, Outcome]:
        """Without and with the regularizer."""
        model = copy.deepcopy(self.initial).double()
        activations = hidden_outputs(model)
        loss = F.cross_entropy(model(self.images.double()), self.labels)
        penalties = [power_law_page(covariance_spectrum(x), x.shape[1]) for x in activations]
        regularized = loss + BETA * torch.stack(penalties).mean()
        return (
            Outcome(loss.detach(), _gradients(loss, model, retain_graph=True)),
            Outcome(regularized.detach(), _gradients(regularized, model)),
        )


def _gradients(loss: Tensor, model: nn.Module, retain_graph: bool = False) -> list[Tensor]:
    """The gradient of each linear module as one vector: that of a bias is too small alone."""
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(loss, parameters, retain_graph=retain_graph)
    pairs = zip(gradients[::2], gradients[1::2], strict=True)
    return [torch.cat([weight.flatten(), bias]) for weight, bias in pairs]
