"""The networks of the study."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["DigitsNet"]

WIDTHS = (32, 32, 64, 64, 128)
POOLED_BEFORE = (2, 4)


class DigitsNet(nn.Module):
    """Five convolution-BatchNorm-ReLU layers, average pooling and a linear classifier.

    Without BatchNorm a positive alpha kills nearly every unit.
    """

    def __init__(self, num_classes: int, channels: int = 1) -> None:
        super().__init__()
        for index, (before, after) in enumerate(zip((channels, *WIDTHS), WIDTHS)):
            layers: list[nn.Module] = [nn.MaxPool2d(2)] if index in POOLED_BEFORE else []
            layers.append(nn.Conv2d(before, after, 3, padding=1, bias=False))
            self.add_module(f"conv{index + 1}", nn.Sequential(*layers))
            self.add_module(f"norm{index + 1}", nn.BatchNorm2d(after))
            self.add_module(f"relu{index + 1}", nn.ReLU())
        self.classifier = nn.Linear(WIDTHS[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[N, num_classes]`` of images ``[N, channels, H, W]``."""
        x = images
        for name, layer in self.named_children():
            if name != "classifier":
                x = layer(x)
        logits: Tensor = self.classifier(torch.mean(x, (2, 3)))
        return logits
