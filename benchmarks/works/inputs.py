"""Seeded inputs, and the selectivity loss of their means in float64."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from ..losses import mean_selectivity_page
from ..models import RESNET20_MAPS

__all__ = [
    "generator",
    "labels",
    "normal",
    "num_bytes",
    "resnet20_maps",
    "seed",
    "seeded",
    "selectivity_and_gradients",
    "uniform",
]

_seed = 0


def seed() -> int:
    """The seed of inputs and weights."""
    return _seed


@contextmanager
def seeded(number: int) -> Iterator[None]:
    """Draw inputs and weights from another seed for a while."""
    global _seed
    before, _seed = _seed, number
    try:
        yield
    finally:
        _seed = before


def generator(device: torch.device | str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(_seed)


def normal(*shape: int, source: torch.Generator) -> Tensor:
    return torch.randn(*shape, generator=source, device=source.device)


def uniform(*shape: int, source: torch.Generator) -> Tensor:
    return torch.rand(*shape, generator=source, device=source.device)


def labels(samples: int, num_classes: int, source: torch.Generator) -> Tensor:
    return torch.randint(num_classes, (samples,), generator=source, device=source.device)


def resnet20_maps(samples: int, source: torch.Generator) -> list[Tensor]:
    """Normal maps of the shapes of ResNet-20's 19 ReLUs."""
    return [normal(samples, *shape, source=source) for shape in RESNET20_MAPS]


def num_bytes(tensors: Sequence[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def selectivity_and_gradients(
    means: Sequence[Tensor], classes: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Mean selectivity index of spatial means in float64, and its gradients."""
    leaves = [mean.double().requires_grad_() for mean in means]
    index = mean_selectivity_page(leaves, classes, ())
    return index.detach(), torch.autograd.grad(index, leaves)
