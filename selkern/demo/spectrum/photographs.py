"""Patches of the photographs that come with scikit-image, and their spectrum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

import selkern
from selkern import analysis

__all__ = ["PHOTOGRAPHS", "PatchSpectrum", "load_patches", "spectrum_of_patches"]

# Scenes that are part of scikit-image itself: nothing is downloaded.
PHOTOGRAPHS = ("astronaut", "camera", "chelsea", "coffee", "rocket")


@dataclass(frozen=True)
class PatchSpectrum:
    """The covariance spectrum of patches, and the power law fitted to it."""

    patches: int
    pixels: int
    spectrum: Tensor
    fit: analysis.PowerLawFit
    participation_ratio: float


def load_patches(size: int, each: int, seed: int) -> Tensor:
    """Grey patches ``[N, size * size]``, float64, so many of each photograph."""
    import skimage.data
    from skimage.color import rgb2gray

    generator = np.random.default_rng(seed)
    patches = []
    for name in PHOTOGRAPHS:
        photograph = getattr(skimage.data, name)() / 255
        grey = rgb2gray(photograph) if photograph.ndim == 3 else photograph
        windows = sliding_window_view(grey, (size, size))
        rows, columns = (generator.integers(0, limit, each) for limit in windows.shape[:2])
        patches.append(windows[rows, columns].reshape(each, -1))
    return torch.from_numpy(np.concatenate(patches))


def spectrum_of_patches(patches: Tensor) -> PatchSpectrum:
    """Measure patches ``[N, D]``."""
    spectrum = selkern.eigenspectrum(patches).cpu()
    return PatchSpectrum(
        patches=patches.shape[0],
        pixels=patches.shape[1],
        spectrum=spectrum,
        fit=analysis.fit_power_law(spectrum),
        participation_ratio=float(analysis.participation_ratio(patches)),
    )
