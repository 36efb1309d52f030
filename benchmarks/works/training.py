"""A whole training step of ResNet-20, with and without the regularizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

import selkern
from selkern.study.residual import ResNet20

from ..losses import mean_selectivity_page
from ..work import Outcome, Target, contender
from .network_step import PLAIN, NetworkStep, Regularizer

__all__ = ["TrainingStep"]

ALPHA = -2.0

FUSED = "selkern.SelectivityRegularizer"
CAREFUL = "SelectivityRegularizer(backend='reference')"
BACKENDS = {FUSED: "selkern", CAREFUL: "reference"}


class TrainingStep(NetworkStep):
    name = "training_step"
    title = "whole training step of ResNet-20, batch 128 of 3 x 32 x 32, SGD"
    rounds = 60
    quick_rounds = 10
    # Rounding that flips a ReLU is amplified by the layers behind it.
    gradient_tolerance = 1e-3
    samples = 128
    image_shape = (3, 32, 32)
    activation = nn.ReLU
    targets: ClassVar[tuple[Target, ...]] = (
        Target(
            "added by SelectivityRegularizer",
            lambda comparison: comparison.added_percent(FUSED, PLAIN),
            2.0,
            at_least=False,
            unit="%",
        ),
    )

    def network(self) -> nn.Module:
        return ResNet20(self.num_classes)

    def optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=1e-4)

    def regularizer(self, label: str, model: nn.Module) -> Regularizer | None:
        if label not in BACKENDS:
            return None
        return selkern.SelectivityRegularizer(
            model, self.num_classes, alpha=ALPHA, backend=BACKENDS[label]
        )

    def penalty(self, activations: Sequence[Tensor]) -> Tensor:
        return -ALPHA * mean_selectivity_page(activations, self.labels, (2, 3))

    @contender(FUSED, "selkern")
    def fused_step(self) -> Outcome:
        return self._step(FUSED)

    @contender(CAREFUL)
    def careful_step(self) -> Outcome:
        return self._step(CAREFUL)
