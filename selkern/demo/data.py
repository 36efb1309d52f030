"""scikit-learn's digits: 1,797 real images of 8 x 8, in a fixed split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits as load_sklearn_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

__all__ = ["NUM_CLASSES", "Digits", "Images", "load_digits"]

NUM_CLASSES = 10
TEST_IMAGES = 450
BRIGHTEST = 16.0


@dataclass(frozen=True)
class Images:
    """Images ``[N, 1, 8, 8]`` and their labels ``[N]``."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, size: int) -> Iterator[Images]:
        """All images in their order; the last batch may be smaller."""
        pairs = zip(self.images.split(size), self.labels.split(size), strict=True)
        return (Images(images, labels) for images, labels in pairs)

    def shuffled_batches(self, size: int, generator: torch.Generator) -> Iterator[Images]:
        """Full batches in random order, once through the images."""
        order = torch.randperm(len(self), generator=generator)
        for rows in order[: len(self) // size * size].split(size):
            yield Images(self.images[rows], self.labels[rows])


@dataclass(frozen=True)
class Digits:
    """The digits in their fixed split, which keeps the classes in proportion."""

    train: Images
    test: Images


def load_digits() -> Digits:
    """Load the digits, scaled to mean 0 and standard deviation 1."""
    pixels, digits = load_sklearn_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / BRIGHTEST
    labels = torch.tensor(digits, dtype=torch.int64)
    train, test = train_test_split(
        torch.arange(len(labels)).numpy(), test_size=TEST_IMAGES, stratify=digits, random_state=0
    )
    scaled = (images - images[train].mean()) / images[train].std()
    return Digits(
        train=Images(scaled[train], labels[train]), test=Images(scaled[test], labels[test])
    )
