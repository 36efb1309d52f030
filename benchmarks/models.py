"""Shapes of the activations of residual networks (He et al. 2016)."""

from __future__ import annotations

__all__ = ["RESNET20_MAPS", "RESNET50_MAPS"]

RESNET20_MAPS = 7 * [(16, 32, 32)] + 6 * [(32, 16, 16)] + 6 * [(64, 8, 8)]
"""Shapes of the outputs of ResNet-20's ReLUs, without the batch."""

RESNET50_MAPS = [
    (64, 112, 112),
    (64, 56, 56),
    (256, 56, 56),
    (128, 56, 56),
    (128, 28, 28),
    (512, 28, 28),
    (256, 28, 28),
    (256, 14, 14),
    (1024, 14, 14),
    (512, 14, 14),
    (512, 7, 7),
    (2048, 7, 7),
]
"""Distinct shapes of the outputs of ResNet-50's ReLUs for 224 x 224 images, without the batch."""
