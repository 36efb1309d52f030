"""Noise that is drawn for every value by itself."""

from __future__ import annotations

import torch
from torch import Tensor


def gaussian_noise(images: Tensor, generator: torch.Generator | None, deviation: float) -> Tensor:
    """Add noise of the same standard deviation everywhere."""
    return images + deviation * _normal(images, generator)


def shot_noise(images: Tensor, generator: torch.Generator | None, photons: float) -> Tensor:
    """Count photons, of which a white pixel gets ``photons`` on average."""
    return torch.poisson(images * photons, generator) / photons


def impulse_noise(images: Tensor, generator: torch.Generator | None, amount: float) -> Tensor:
    """Turn a fraction of the values black or white, with equal chances."""
    chance = uniform(images, images.shape, generator)
    impulses = (chance < amount / 2).to(images.dtype)
    return torch.where(chance < amount, impulses, images)


def speckle_noise(images: Tensor, generator: torch.Generator | None, deviation: float) -> Tensor:
    """Add noise in proportion to the value."""
    return images * (1 + deviation * _normal(images, generator))


def uniform(
    like: Tensor, shape: tuple[int, ...], generator: torch.Generator | None, low: float = 0.0
) -> Tensor:
    """Draw from ``low`` to 1, of the dtype and on the device of ``like``."""
    drawn = torch.rand(shape, generator=generator, dtype=like.dtype, device=like.device)
    return low + (1 - low) * drawn


def _normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)
