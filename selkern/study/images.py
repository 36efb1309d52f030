"""The images of a study, loaded once a process."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from selkern import data
from selkern.data import ImageSet

__all__ = ["StudyImages", "checksum", "image_shape", "load_study_images"]

CHECKED_IMAGES = 100


@dataclass(frozen=True)
class StudyImages:
    """Images to train on, to choose the best epoch by, and to measure on."""

    train: ImageSet
    validation: ImageSet | None
    test: ImageSet

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.test.num_classes

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return self.test.image_shape

    def settings(self) -> dict[str, Any]:
        """What tells these images from others, as JSON."""
        return {
            "training images": len(self.train),
            "validation images": 0 if self.validation is None else len(self.validation),
            "test images": len(self.test),
            "image shape": list(self.shape),
            "classes": self.num_classes,
            "checksum": "-".join(f"{checksum(images):08x}" for images in (self.train, self.test)),
        }


def checksum(images: ImageSet) -> int:
    """Checksum of all labels and of some images, spread over the set."""
    rows = torch.linspace(0, len(images) - 1, min(len(images), CHECKED_IMAGES)).long()
    pixels, _ = images[rows]
    return zlib.crc32(pixels.numpy().tobytes(), zlib.crc32(images.labels.numpy().tobytes()))


_load_images = lru_cache(maxsize=1)(data.load_images)


def image_shape(source: str) -> tuple[int, int, int]:
    """Channels, height and width of the images of a source."""
    return _load_images(source).test.image_shape


@lru_cache(maxsize=1)
def load_study_images(source: str, validation: int) -> StudyImages:
    """Load images, and hold so many of the training images out, the same ones every time.

    Parameters
    ----------
    source : str
        As for :func:`selkern.data.load_images`.
    validation : int
        How many.

    Raises
    ------
    ValueError
        If no training image would be left, or there are no two test images.
    """
    splits = _load_images(source)
    images = len(splits.train)
    if len(splits.test) < 2:
        raise ValueError(f"there must be at least 2 test images, got {len(splits.test)}")
    if validation >= images:
        raise ValueError(
            f"there must be more than {validation} training images, which are held out to choose "
            f"the best epoch by, got {images}"
        )
    if validation == 0:
        return StudyImages(splits.train, None, splits.test)
    order = torch.randperm(images, generator=torch.Generator().manual_seed(0))
    held_out, kept = order[:validation].msort(), order[validation:].msort()
    return StudyImages(splits.train.subset(kept), splits.train.subset(held_out), splits.test)
