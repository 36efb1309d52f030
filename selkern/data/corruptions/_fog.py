"""Fog: a random landscape of brightness."""

from __future__ import annotations

import torch
from torch import Tensor

from selkern.data.corruptions._noise import uniform


def fog(images: Tensor, generator: torch.Generator | None, density: float, decay: float) -> Tensor:
    """Add fog, and scale the image's brightest value back to where it was.

    A black image stays black, as in the published generator.
    """
    height, width = images.shape[2:]
    side = 1 << (max(height, width) - 1).bit_length()
    field = landscape(images, side, generator, decay)[:, None, :height, :width]
    brightest = images.amax((1, 2, 3), keepdim=True)
    return (images + density * field) * brightest / (brightest + density)


def landscape(images: Tensor, side: int, generator: torch.Generator | None, decay: float) -> Tensor:
    """Fields ``[N, side, side]`` of the diamond-square algorithm, from 0 to 1, one an image.

    The fields wrap around. ``side`` is a power of two. What is drawn for the points half as far
    apart is smaller by the square of ``decay``.
    """
    heights = images.new_zeros(len(images), 1, 1)
    roughness = 1.0
    while heights.shape[1] < side:
        beside = heights + heights.roll(-1, 2)
        below = heights + heights.roll(-1, 1)
        centers = _varied(beside + beside.roll(-1, 1), roughness, generator)
        across = _varied(beside + centers + centers.roll(1, 1), roughness, generator)
        down = _varied(below + centers + centers.roll(1, 2), roughness, generator)
        rows = torch.stack([heights, across], 3).flatten(2)
        between = torch.stack([down, centers], 3).flatten(2)
        heights = torch.stack([rows, between], 2).flatten(1, 2)
        roughness /= decay**2
    lowest = heights.amin((1, 2), keepdim=True)
    return (heights - lowest) / (heights.amax((1, 2), keepdim=True) - lowest)


def _varied(sums: Tensor, roughness: float, generator: torch.Generator | None) -> Tensor:
    """Means of four neighbours, given their sums, and what is drawn for each."""
    return sums / 4 + roughness * uniform(sums, tuple(sums.shape), generator, low=-1.0)
