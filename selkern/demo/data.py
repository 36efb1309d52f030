"""scikit-learn's digits: 1,797 real images of 8 x 8, in a fixed split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from selkern import data

__all__ = ["NUM_CLASSES", "Digits", "Images", "load_digits"]

NUM_CLASSES = 10


@dataclass(frozen=True)
class Images:
    """Images ``[N, 1, 8, 8]`` and their labels ``[N]``."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Images:
        """The same on a device."""
        return Images(self.images.to(device), self.labels.to(device))

    def batches(self, size: int) -> Iterator[Images]:
        """All images in their order; the last batch may be smaller."""
        pairs = zip(self.images.split(size), self.labels.split(size), strict=True)
        return (Images(images, labels) for images, labels in pairs)

    def shuffled_batches(self, size: int, generator: torch.Generator) -> Iterator[Images]:
        """Full batches in random order, the same on every device, once through the images."""
        order = torch.randperm(len(self), generator=generator).to(self.labels.device)
        for rows in order[: len(self) // size * size].split(size):
            yield Images(self.images[rows], self.labels[rows])


@dataclass(frozen=True)
class Digits:
    """The digits in their fixed split, which keeps the classes in proportion."""

    train: Images
    test: Images

    def to(self, device: torch.device) -> Digits:
        """The same on a device."""
        return Digits(self.train.to(device), self.test.to(device))


def load_digits() -> Digits:
    """Load the digits, scaled to mean 0 and standard deviation 1."""
    (train, train_labels), (test, test_labels) = (images.tensors() for images in data.load_digits())
    mean, deviation = train.mean(), train.std()
    return Digits(
        Images((train - mean) / deviation, train_labels),
        Images((test - mean) / deviation, test_labels),
    )
