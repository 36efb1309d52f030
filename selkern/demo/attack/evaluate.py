"""Accuracy of a network on clean and on adversarial images, and its selectivity."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from selkern._examples import adversarial_training as example
from selkern.attacks import FGSM, PGD
from selkern.demo.attack.networks import make_pgd
from selkern.demo.data import Images
from selkern.demo.selectivity.evaluate import evaluate

__all__ = ["EPS", "Evaluation", "evaluate_under_attack"]

EPS = (0.05, 0.1, 0.15, 0.2, 0.3)
"""Radii of the attacks; images are in [0, 1]."""


@dataclass(frozen=True)
class Evaluation:
    """What a network does on the test set."""

    clean: float
    pgd: dict[float, float]
    """Accuracy under PGD by eps."""
    fgsm: dict[float, float]
    """Accuracy under FGSM by eps."""
    selectivity: float
    dead_units: int
    units: int
    beyond: float
    """How far the farthest adversarial pixel lies beyond the ball or the bounds."""

    @property
    def robustness(self) -> float:
        """Accuracy under PGD, averaged over all eps."""
        return sum(self.pgd.values()) / len(self.pgd)


def evaluate_under_attack(model: nn.Module, images: Images, steps: int, seed: int) -> Evaluation:
    """Evaluate a network on images, clean and under PGD of so many steps and FGSM."""
    start = torch.Generator(images.images.device).manual_seed(seed)
    beyond: list[Tensor] = []

    def accuracy(attack: PGD) -> float:
        def attack_images(clean: Tensor, labels: Tensor) -> Tensor:
            adv = attack(clean, labels)
            beyond.append(_beyond(attack, adv, clean))
            return adv

        share: float = example.accuracy(model, images.images, images.labels, attack_images)
        return share

    on_clean_images = evaluate(model, images)
    pgd = {eps: accuracy(make_pgd(model, eps, steps, start)) for eps in EPS}
    fgsm = {eps: accuracy(FGSM(model, eps)) for eps in EPS}
    return Evaluation(
        clean=on_clean_images.accuracy,
        pgd=pgd,
        fgsm=fgsm,
        selectivity=on_clean_images.overall_index,
        dead_units=on_clean_images.dead_units,
        units=on_clean_images.units,
        beyond=float(torch.stack(beyond).max()),
    )


def _beyond(attack: PGD, adv: Tensor, images: Tensor) -> Tensor:
    """How far the farthest pixel lies beyond the ball or the bounds, at least 0."""
    adv, images = adv.double(), images.double()
    low, high = attack.bounds
    distances = [(adv - images).abs().max() - attack.eps, low - adv.min(), adv.max() - high]
    return torch.stack(distances).max().clamp(min=0)
