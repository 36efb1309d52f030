"""A whole training step of a network, with and without a regularizer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..work import Outcome, Work, contender
from . import inputs

__all__ = [
    "PLAIN",
    "PLAIN_AGAIN",
    "NetworkStep",
    "Regularizer",
    "Trainer",
    "as_vector",
    "outputs_of",
]

PLAIN = "plain"
PLAIN_AGAIN = "plain again"

Regularizer = Callable[[Tensor], Tensor]
"""The term of the last forward's loss, given the labels."""


def outputs_of(model: nn.Module, kind: type[nn.Module]) -> list[Tensor]:
    """What the modules of a kind will put out, forward after forward."""
    outputs: list[Tensor] = []
    for module in model.modules():
        if isinstance(module, kind):
            module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    return outputs


def as_vector(gradients: Sequence[Tensor]) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients])


class Trainer:
    """One of the networks, all of which start from the same weights."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        regularizer: Regularizer | None,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.regularizer = regularizer
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


class NetworkStep(Work):
    """Contenders train a network of their own each, on the same batch."""

    image_shape: ClassVar[tuple[int, ...]]
    samples: ClassVar[int]
    num_classes: ClassVar[int] = 10
    activation: ClassVar[type[nn.Module]]
    """Modules whose outputs are regularized."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        source = inputs.generator(device=device)
        self.images = inputs.normal(self.samples, *self.image_shape, source=source)
        self.labels = inputs.labels(self.samples, self.num_classes, source)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(inputs.seed())
            self.initial = self.network().to(self.device)
        self.trainers: dict[str, Trainer] = {}

    def network(self) -> nn.Module:
        raise NotImplementedError

    def optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        raise NotImplementedError

    def regularizer(self, label: str, model: nn.Module) -> Regularizer | None:
        """The regularizer of a contender, which the plain ones have not."""
        raise NotImplementedError

    def penalty(self, activations: Sequence[Tensor]) -> Tensor:
        """What a regularizer has to add to the loss, without selkern."""
        raise NotImplementedError

    def as_vectors(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Gradients to compare, as one vector by default: some are too small alone."""
        return [as_vector(gradients)]

    def trainer(self, label: str) -> Trainer:
        """The network of a contender, made when it first runs."""
        if label not in self.trainers:
            model = copy.deepcopy(self.initial)
            optimizer = self.optimizer(list(model.parameters()))
            self.trainers[label] = Trainer(model, optimizer, self.regularizer(label, model))
        return self.trainers[label]

    @contender(PLAIN, "plain")
    def plain_step(self) -> Outcome:
        return self._step(PLAIN)

    @contender(PLAIN_AGAIN, "noise")
    def plain_step_again(self) -> Outcome:
        return self._step(PLAIN_AGAIN)

    def _step(self, label: str) -> Outcome:
        self.trainer(label).step(self.images, self.labels)
        return Outcome()

    def losses(self, label: str) -> dict[str, float]:
        seen = self.trainer(label).losses
        return {"first": float(seen[0]), "last": float(seen[-1])} if seen else {}

    def outcome(self, label: str) -> Outcome:
        trainer = self.trainer(label)
        return self._outcome_of(trainer.loss(self.images, self.labels), trainer.model)

    def expected(self, label: str) -> Outcome:
        is_plain = self.contenders[label].role in ("plain", "noise")
        return self._expected[0 if is_plain else 1]

    @cached_property
    def _expected(self) -> tuple[Outcome, Outcome]:
        """Without and with the regularizer."""
        model = copy.deepcopy(self.initial).double()
        activations = outputs_of(model, self.activation)
        loss = F.cross_entropy(model(self.images.double()), self.labels)
        regularized = loss + self.penalty(activations)
        plain = self._outcome_of(loss, model, retain_graph=True)
        return plain, self._outcome_of(regularized, model)

    def _outcome_of(self, loss: Tensor, model: nn.Module, retain_graph: bool = False) -> Outcome:
        parameters = list(model.parameters())
        gradients = torch.autograd.grad(loss, parameters, retain_graph=retain_graph)
        return Outcome(loss.detach(), self.as_vectors(gradients))
