"""A whole training step of ResNet-20, with and without the regularizer."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import selkern

from ..losses import mean_selectivity_page
from ..models import ResNet20
from ..work import Outcome, Target, Work, contender
from . import inputs

__all__ = ["TrainingStep"]

ALPHA = -2.0
NUM_CLASSES = 10

PLAIN = "plain"
PLAIN_AGAIN = "plain again"
FUSED = "selkern.SelectivityRegularizer"
CAREFUL = "SelectivityRegularizer(backend='reference')"

Regularizer = Callable[[Tensor], Tensor]


class _Trainer:
    """One of the networks, all of which start from the same weights."""

    def __init__(self, model: ResNet20, regularizer: Regularizer | None) -> None:
        self.model = model
        self.regularizer = regularizer
        self.parameters = list(model.parameters())
        self.optimizer = torch.optim.SGD(self.parameters, lr=0.05, momentum=0.9, weight_decay=1e-4)
        self.losses: list[Tensor] = []

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        cross_entropy = F.cross_entropy(self.model(images), labels)
        if self.regularizer is None:
            return cross_entropy
        return cross_entropy + self.regularizer(labels)

    def step(self, images: Tensor, labels: Tensor) -> None:
        loss = self.loss(images, labels)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()
        self.losses.append(loss.detach())


class TrainingStep(Work):
    name = "training_step"
    title = "whole training step of ResNet-20, batch 128 of 3 x 32 x 32, SGD"
    rounds = 60
    quick_rounds = 10
    # Rounding that flips a ReLU is amplified by the layers behind it.
    gradient_tolerance = 1e-3
    targets = (
        Target(
            "added by SelectivityRegularizer",
            lambda comparison: comparison.added_percent(FUSED, PLAIN),
            2.0,
            at_least=False,
            unit="%",
        ),
    )

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        source = inputs.generator(device=device)
        self.images = inputs.normal(128, 3, 32, 32, source=source)
        self.labels = inputs.labels(128, NUM_CLASSES, source)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.initial = ResNet20(NUM_CLASSES).to(self.device)
        self.trainers = {
            PLAIN: self._trainer(),
            PLAIN_AGAIN: self._trainer(),
            FUSED: self._trainer("selkern"),
            CAREFUL: self._trainer("reference"),
        }

    def _trainer(self, backend: str | None = None) -> _Trainer:
        model = copy.deepcopy(self.initial)
        if backend is None:
            return _Trainer(model, None)
        regularizer = selkern.SelectivityRegularizer(
            model, NUM_CLASSES, alpha=ALPHA, backend=backend
        )
        return _Trainer(model, regularizer)

    @contender(PLAIN, "plain")
    def plain_step(self) -> Outcome:
        return self._step(PLAIN)

    @contender(PLAIN_AGAIN, "noise")
    def plain_step_again(self) -> Outcome:
        return self._step(PLAIN_AGAIN)

    @contender(FUSED, "selkern")
    def fused_step(self) -> Outcome:
        return self._step(FUSED)

    @contender(CAREFUL)
    def careful_step(self) -> Outcome:
        return self._step(CAREFUL)

    def _step(self, label: str) -> Outcome:
        self.trainers[label].step(self.images, self.labels)
        return Outcome()

    def losses(self, label: str) -> dict[str, float]:
        seen = self.trainers[label].losses
        return {"first": float(seen[0]), "last": float(seen[-1])} if seen else {}

    def outcome(self, label: str) -> Outcome:
        trainer = self.trainers[label]
        loss = trainer.loss(self.images, self.labels)
        return Outcome(loss.detach(), _gradient(loss, trainer.model))

    def expected(self, label: str) -> Outcome:
        model = copy.deepcopy(self.initial).double()
        maps: list[Tensor] = []
        for module in model.modules():
            if isinstance(module, nn.ReLU):
                module.register_forward_hook(lambda _module, _inputs, output: maps.append(output))
        loss = F.cross_entropy(model(self.images.double()), self.labels)
        if label not in (PLAIN, PLAIN_AGAIN):
            loss = loss - ALPHA * mean_selectivity_page(maps, self.labels, (2, 3))
        return Outcome(loss.detach(), _gradient(loss, model))


def _gradient(loss: Tensor, model: nn.Module) -> list[Tensor]:
    """The gradient of all parameters as one vector: some are too small to compare alone."""
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    return [torch.cat([gradient.flatten() for gradient in gradients])]
