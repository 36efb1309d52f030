"""Images to corrupt."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from selkern.data.corruptions import CORRUPTIONS

DRAWN = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "speckle_noise",
    "motion_blur",
    "fog",
    "elastic_transform",
)
FIXED = tuple(name for name in CORRUPTIONS if name not in DRAWN)


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth(
    images: int,
    channels: int,
    height: int,
    width: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Random images that vary over a fourth of their height, some values black or white."""
    cells = max(4, height // 4)
    coarse = torch.rand(images, channels, cells, cells, generator=generator(0))
    size = (height, height if width is None else width)
    fine = functional.interpolate(1.2 * coarse - 0.1, size, mode="bicubic", align_corners=True)
    return fine.clamp(0, 1).to(dtype)


def gray(value: float, side: int, images: int = 1) -> Tensor:
    return torch.full((images, 1, side, side), value, dtype=torch.float64)


def point(side: int, images: int = 1) -> Tensor:
    """White in the middle of black."""
    image = gray(0.0, side, images)
    image[..., side // 2, side // 2] = 1.0
    return image


def as_numpy(images: Tensor) -> np.ndarray:
    return images.double().numpy()
