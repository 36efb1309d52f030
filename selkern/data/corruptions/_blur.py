"""Blurs. Below 32 pixels their kernels are those of 32, made smaller.

The taps of a kernel are then closer together than pixels, and each falls on the pixels around it
in the proportions of linear interpolation. Sampled anew at such a size, most would be a single tap,
which changes nothing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from selkern.data._packages import needed
from selkern.data.corruptions._constants import SMALL
from selkern.data.corruptions._noise import uniform

ZOOM_STEP = 0.01
NEGLIGIBLE = 1e-6


def defocus_blur(images: Tensor, radius: float, softness: float) -> Tensor:
    """Spread every point over a disk of whole pixels with a smoothed edge.

    The borders are reflected, as in the published images.
    """
    filters = needed("kornia.filters", "defocus_blur")
    spacing = _spacing(images)
    kernel = disk(images, radius / spacing, softness / spacing)
    falls = _falls(images, len(kernel) // 2, spacing)
    return filters.filter2d(images, (falls.T @ kernel @ falls)[None], border_type="reflect")


def disk(like: Tensor, radius: float, softness: float) -> Tensor:
    """Kernel of a disk of whole taps, smoothed by a Gaussian of 3 x 3 taps (5 x 5 if it is big)."""
    filters = needed("kornia.filters", "defocus_blur")
    edge = 1 if radius <= 8 else 2
    reach = int(radius) + edge
    offsets = torch.arange(-reach, reach + 1, dtype=like.dtype, device=like.device)
    inside = (offsets.square() + offsets.square()[:, None] <= radius**2).to(like.dtype)
    smooth = filters.get_gaussian_kernel1d(
        2 * edge + 1, softness, dtype=like.dtype, device=like.device
    )
    smoothed = filters.filter2d_separable(
        (inside / inside.sum())[None, None], smooth, smooth, border_type="constant"
    )
    return smoothed[0, 0]


def gaussian_blur(images: Tensor, deviation: float) -> Tensor:
    """Spread every point over a Gaussian, cut off at 4 standard deviations; borders go on."""
    filters = needed("kornia.filters", "gaussian_blur")
    spacing = _spacing(images)
    reach = int(4 * deviation / spacing + 0.5)
    kernel = filters.get_gaussian_kernel1d(
        2 * reach + 1, deviation / spacing, dtype=images.dtype, device=images.device
    )
    kernel = kernel @ _falls(images, reach, spacing)
    return filters.filter2d_separable(images, kernel, kernel, border_type="replicate")


def motion_blur(
    images: Tensor, generator: torch.Generator | None, radius: float, deviation: float
) -> Tensor:
    """Draw every point out to one side, within 45 degrees of the horizontal."""
    angles = math.pi / 4 * uniform(images, (len(images),), generator, low=-1.0)
    return streak(images, angles, radius, deviation)


def streak(images: Tensor, angles: Tensor, radius: float, deviation: float) -> Tensor:
    """Average an image and its shifts along an angle, by the weights of half a Gaussian.

    Shifts are linearly interpolated, where the published generator takes the nearest pixel. The
    border goes on.
    """
    height, width = images.shape[2:]
    pixel = images.new_tensor([2 / (width - 1), 2 / (height - 1)])
    direction = pixel * torch.stack([angles.cos(), angles.sin()], -1)[:, None, None]
    places = _places(images)
    total = torch.zeros_like(images)
    taps = _fading(_spacing(images), radius, deviation)
    for shift, weight in taps:
        total += weight * functional.grid_sample(
            images, places + shift * direction, padding_mode="border", align_corners=True
        )
    return total / sum(weight for _, weight in taps)


def _fading(spacing: float, radius: float, deviation: float) -> list[tuple[float, float]]:
    """Shifts along a streak up to twice the radius, with those of their weights that count."""
    shifts = [tap * spacing for tap in range(2 * math.ceil(radius / spacing) + 1)]
    weighted = [(shift, math.exp(-0.5 * (shift / deviation) ** 2)) for shift in shifts]
    return [(shift, weight) for shift, weight in weighted if weight > NEGLIGIBLE]


def zoom_blur(images: Tensor, largest: float) -> Tensor:
    """Average an image, twice, and its magnifications about the center.

    Magnifications keep the center, where the published generator crops whole pixels first.
    """
    steps = round((largest - 1) / ZOOM_STEP)
    # One grid serves all images if they are channels of one.
    planes = images.reshape(1, -1, *images.shape[2:])
    total = 2 * planes
    for step in range(1, steps + 1):
        grid = _places(images, 1 + step * ZOOM_STEP)
        total += functional.grid_sample(planes, grid, padding_mode="border", align_corners=True)
    return (total / (steps + 2)).reshape(images.shape)


def _places(images: Tensor, magnification: float = 1.0) -> Tensor:
    """Where the pixels of magnified images come from, ``[1, H, W, 2]``."""
    part = 1 / magnification
    theta = images.new_tensor([[[part, 0, 0], [0, part, 0]]])
    return functional.affine_grid(theta, [1, 1, *images.shape[2:]], align_corners=True)


def _spacing(images: Tensor) -> float:
    """Distance in pixels between the taps of a kernel."""
    return min(1.0, min(images.shape[2:]) / SMALL)


def _falls(like: Tensor, reach: int, spacing: float) -> Tensor:
    """What each of ``2 reach + 1`` taps adds to each pixel, ``[taps, pixels]``."""
    taps = torch.arange(-reach, reach + 1, dtype=like.dtype, device=like.device) * spacing
    farthest = math.ceil(reach * spacing)
    pixels = torch.arange(-farthest, farthest + 1, dtype=like.dtype, device=like.device)
    return (1 - (taps[:, None] - pixels).abs()).clamp(min=0)
