"""Inputs of attack steps shared by the tests."""

from __future__ import annotations

import torch
from cases import LAYOUTS, normal
from torch import Tensor

NORMS = ["linf", "l2"]
STEPS = {
    "linf": {"eps": 8 / 255, "alpha": 2 / 255, "norm": "linf"},
    "l2": {"eps": 0.25, "alpha": 0.1, "norm": "l2"},
}
RAW = {"linf": (0, 0.03, 0.01, 0.0, 1.0), "l2": (1, 0.25, 0.1, 0.0, 1.0)}


def images_like(shape: tuple[int, ...], dtype: torch.dtype, layout: str) -> tuple[Tensor, ...]:
    """Where an attack is, the gradient there, and its images, all within the bounds."""
    images = normal(shape, torch.float64).mul(0.3).add(0.5).clamp(0, 1)
    moved = images + 0.03 * normal((*shape, 1), torch.float64)[..., 0]
    adv, images = (LAYOUTS[layout](x.to(dtype)) for x in (moved.clamp(0, 1), images))
    return adv, normal(shape, dtype, layout), images


def batch(seed: int, dtype: torch.dtype, scale: float = 1.0) -> tuple[Tensor, ...]:
    """Where a far attack is, the gradient there, and images, some of them at the bounds."""
    generator = torch.Generator().manual_seed(seed)
    shape = (4, 3, 9, 7)
    images = (torch.rand(shape, dtype=torch.float64, generator=generator) * 1.2 - 0.1).clamp(0, 1)
    noise = torch.randn(shape, dtype=torch.float64, generator=generator)
    gradient = torch.randn(shape, dtype=torch.float64, generator=generator)
    adv = (images + 0.05 * noise).clamp(0, 1)
    return (adv * scale).to(dtype), gradient.to(dtype), (images * scale).to(dtype)
