"""Train the example's network, with attacks and without, at several strengths."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from selkern import data
from selkern._examples import adversarial_training as example
from selkern.attacks import PGD
from selkern.demo.data import Digits, Images

__all__ = ["KINDS", "Kind", "Recipe", "load_digits", "make_pgd", "train"]


@dataclass(frozen=True)
class Kind:
    """How the networks of a column of the table are trained."""

    alpha: float
    is_attacked: bool = True


KINDS = (Kind(-2.0), Kind(0.0), Kind(2.0), Kind(0.0, is_attacked=False))


@dataclass(frozen=True)
class Recipe:
    """How networks are trained, and how many of each kind."""

    epochs: int = 15
    seed: int = 0
    networks: int = 3
    batch_size: int = 128
    eps: float = 0.1
    attack_steps: int = 5

    @property
    def seeds(self) -> range:
        """Seed of each network of a kind."""
        return range(self.seed, self.seed + self.networks)

    def steps_of_an_epoch(self, images: Images) -> int:
        """Number of batches; the last one may be smaller."""
        return math.ceil(len(images) / self.batch_size)


def load_digits() -> Digits:
    """The digits in [0, 1]."""
    train, test = (Images(*images.tensors()) for images in data.load_digits())
    return Digits(train, test)


def make_pgd(
    model: nn.Module, eps: float, steps: int, generator: torch.Generator | None = None
) -> PGD:
    """PGD whose steps together are two and a half times as long as the radius."""
    return PGD(model, eps, 2.5 * eps / steps, steps, generator=generator)


def train(
    kind: Kind,
    seed: int,
    images: Images,
    recipe: Recipe,
    at_step: Callable[[], object] = lambda: None,
) -> nn.Sequential:
    """Train a network by the example's loop, where the images are."""
    torch.manual_seed(seed)
    model: nn.Sequential = example.make_model().to(images.images.device)
    inner = make_pgd(model, recipe.eps, recipe.attack_steps) if kind.is_attacked else _unchanged

    def attack(images: Tensor, labels: Tensor) -> Tensor:
        at_step()
        return inner(images, labels)

    example.train(
        model,
        images.images,
        images.labels,
        attack,
        kind.alpha,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
    )
    return model


def _unchanged(images: Tensor, labels: Tensor) -> Tensor:
    return images
