"""The published strengths of the corruptions, and what they are at other image sizes.

CIFAR-10-C states them for images of 32 pixels, Tiny ImageNet-C for 64. The rule for all others:

- between 32 and 64 a constant is interpolated linearly in the logarithm of the size;
- below 32 and above 64 a constant that is a length in pixels is that of 32 or 64 in proportion to
  the size, and any other is that of 32 or 64 itself.

The size of an image whose sides differ is its shorter side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from selkern.data.corruptions import _checks

SMALL, LARGE = 32, 64


@dataclass(frozen=True)
class Constant:
    """A constant by severity, from 1 to 5, at the two published sizes."""

    meaning: str
    at_small: tuple[float, float, float, float, float]
    at_large: tuple[float, float, float, float, float]
    is_length: bool = False

    def at(self, size: int) -> tuple[float, ...]:
        """Return the constant at every severity for images of ``size`` pixels."""
        if SMALL < size < LARGE:
            way = fraction(size)
            return tuple(
                small + way * (large - small)
                for small, large in zip(self.at_small, self.at_large, strict=True)
            )
        column, nearest = (self.at_small, SMALL) if size <= SMALL else (self.at_large, LARGE)
        scale = size / nearest if self.is_length else 1.0
        return tuple(scale * value for value in column)


# Brightness runs from 0, black, to 1, white.
TABLE: dict[str, dict[str, Constant]] = {
    "gaussian_noise": {
        "deviation": Constant(
            "standard deviation of the noise, in brightness",
            (0.04, 0.06, 0.08, 0.09, 0.10),
            (0.04, 0.08, 0.12, 0.15, 0.18),
        ),
    },
    "shot_noise": {
        "photons": Constant(
            "mean number of photons that a white pixel counts",
            (500, 250, 100, 75, 50),
            (250, 100, 50, 30, 15),
        ),
    },
    "impulse_noise": {
        "amount": Constant(
            "fraction of the values that turn black or white",
            (0.01, 0.02, 0.03, 0.05, 0.07),
            (0.01, 0.02, 0.05, 0.08, 0.14),
        ),
    },
    "speckle_noise": {
        "deviation": Constant(
            "standard deviation of the noise, as a fraction of the value it is added to",
            (0.06, 0.10, 0.12, 0.16, 0.20),
            (0.15, 0.20, 0.25, 0.30, 0.35),
        ),
    },
    "defocus_blur": {
        "radius": Constant(
            "radius of the disk that a point becomes, in pixels",
            (0.3, 0.4, 0.5, 1.0, 1.5),
            (0.5, 1.0, 1.5, 2.5, 3.0),
            is_length=True,
        ),
        "softness": Constant(
            "standard deviation of the Gaussian that smooths the disk's edge, in pixels",
            (0.4, 0.5, 0.6, 0.2, 0.1),
            (0.6, 0.1, 0.1, 0.01, 0.1),
            is_length=True,
        ),
    },
    "gaussian_blur": {
        "deviation": Constant(
            "standard deviation of the Gaussian that a point becomes, in pixels",
            (0.4, 0.6, 0.7, 0.8, 1.0),
            (0.50, 0.75, 1.00, 1.25, 1.50),
            is_length=True,
        ),
    },
    "motion_blur": {
        "radius": Constant(
            "half the length of the streak that a point becomes, in pixels",
            (6, 6, 6, 8, 9),
            (10, 10, 10, 10, 12),
            is_length=True,
        ),
        "deviation": Constant(
            "standard deviation of the Gaussian by which the streak fades, in pixels",
            (1.0, 1.5, 2.0, 2.0, 2.5),
            (1.0, 1.5, 2.0, 2.5, 3.0),
            is_length=True,
        ),
    },
    "zoom_blur": {
        # Published as steps of 0.01 up to an end that is left out; rounding took it in at 1 and 2.
        "largest": Constant(
            "largest of the magnifications that are averaged, which go up from 1 by 0.01",
            (1.06, 1.11, 1.15, 1.20, 1.25),
            (1.06, 1.11, 1.15, 1.20, 1.25),
        ),
    },
    "fog": {
        "density": Constant(
            "brightness of the densest fog",
            (0.20, 0.50, 0.75, 1.00, 1.50),
            (0.4, 0.7, 1.0, 1.5, 2.0),
        ),
        "decay": Constant(
            "smoothness: the square of it divides the fog's variation from one scale to the next,"
            " half as long",
            (3.00, 3.00, 2.50, 2.00, 1.75),
            (3.00, 3.00, 2.50, 2.00, 1.75),
        ),
    },
    "brightness": {
        "shift": Constant(
            "what is added to the HSV value, or to a gray image, in brightness",
            (0.05, 0.10, 0.15, 0.20, 0.30),
            (0.1, 0.2, 0.3, 0.4, 0.5),
        ),
    },
    "contrast": {
        "factor": Constant(
            "what the difference from the channel's mean is multiplied by",
            (0.75, 0.50, 0.40, 0.30, 0.15),
            (0.40, 0.30, 0.20, 0.10, 0.05),
        ),
    },
    "saturate": {
        "factor": Constant(
            "what the HSV saturation is multiplied by",
            (0.3, 0.1, 1.5, 2.0, 2.5),
            (0.3, 0.1, 2.0, 5.0, 30.0),
        ),
        "shift": Constant(
            "what is added to the saturation then",
            (0.0, 0.0, 0.0, 0.1, 0.2),
            (0.0, 0.0, 0.0, 0.1, 0.2),
        ),
    },
    "elastic_transform": {
        "amplitude": Constant(
            "largest displacement of a pixel before smoothing, in pixels",
            (0.00, 1.60, 2.56, 3.20, 3.20),
            (0.00, 3.20, 6.40, 6.40, 10.24),
            is_length=True,
        ),
        "deviation": Constant(
            "standard deviation of the Gaussian that smooths the displacements, in pixels",
            (0.00, 6.40, 1.92, 1.28, 0.96),
            (0.00, 19.20, 5.12, 1.92, 1.92),
            is_length=True,
        ),
        "jitter": Constant(
            "largest displacement of the three points that fix the affine map, in pixels",
            (2.56, 2.24, 1.92, 1.60, 0.96),
            (5.12, 3.84, 3.84, 1.92, 1.28),
            is_length=True,
        ),
    },
    "pixelate": {
        "fraction": Constant(
            "side of the image of fewer pixels, as a fraction",
            (0.95, 0.90, 0.85, 0.75, 0.65),
            (0.9, 0.8, 0.7, 0.6, 0.5),
        ),
    },
    "jpeg_compression": {
        "quality": Constant(
            "quality that the JPEG encoder is asked for, rounded; 100 is the best",
            (80, 65, 58, 50, 40),
            (65, 58, 50, 40, 25),
        ),
    },
}

CORRUPTIONS = tuple(TABLE)


def fraction(size: int) -> float:
    """Return how far between 32 and 64 a size is, in the logarithm."""
    return math.log2(size / SMALL) / math.log2(LARGE / SMALL)


def constants(name: str, size: int) -> tuple[dict[str, float], ...]:
    """Constants of a corruption for images of a size: the strengths of its five severities.

    Those of CIFAR-10-C at 32 pixels and of Tiny ImageNet-C at 64 (Hendrycks and Dietterich, arXiv
    1903.12261). Between, they are interpolated linearly in the logarithm of the size; below 32 and
    above 64 lengths go on in proportion to the size, and all others stay as they are.

    Parameters
    ----------
    name : str
        One of ``CORRUPTIONS``.
    size : int
        Pixels of the images' shorter side, at least 8.

    Returns
    -------
    tuple of dict
        The constants by name, for severities 1 to 5.

    Raises
    ------
    TypeError
        If ``name`` is no string or ``size`` no integer.
    ValueError
        If ``name`` is no corruption, or ``size`` is below 8.

    Examples
    --------
    >>> constants("motion_blur", 32)[0]
    {'radius': 6.0, 'deviation': 1.0}
    >>> constants("motion_blur", 8)[0]
    {'radius': 1.5, 'deviation': 0.25}
    """
    columns = TABLE[_checks.name(name, CORRUPTIONS)]
    size = _checks.size(size)
    by_severity = zip(*(constant.at(size) for constant in columns.values()), strict=True)
    return tuple(dict(zip(columns, values, strict=True)) for values in by_severity)
