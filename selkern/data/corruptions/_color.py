"""Brightness, contrast and saturation."""

from __future__ import annotations

import torch
from torch import Tensor

from selkern.data._packages import needed


def brightness(images: Tensor, shift: float) -> Tensor:
    """Raise the HSV value, or what a gray image has for it."""
    if images.shape[1] == 1:
        return images + shift
    color = needed("kornia.color", "brightness")
    hue, saturation, value = color.rgb_to_hsv(images).unbind(1)
    return color.hsv_to_rgb(torch.stack([hue, saturation, (value + shift).clamp(0, 1)], 1))


def contrast(images: Tensor, factor: float) -> Tensor:
    """Move every channel towards its mean."""
    mean = images.mean((2, 3), keepdim=True)
    return mean + factor * (images - mean)


def saturate(images: Tensor, factor: float, shift: float) -> Tensor:
    """Change the HSV saturation."""
    color = needed("kornia.color", "saturate")
    hue, saturation, value = color.rgb_to_hsv(images).unbind(1)
    saturation = (factor * saturation + shift).clamp(0, 1)
    return color.hsv_to_rgb(torch.stack([hue, saturation, value], 1))
