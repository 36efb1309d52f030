"""Data with known spectra, and the measures of whole data sets in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[Any]


def random(*shape: int, seed: int = 0) -> Array:
    """Samples whose units differ in variance and mean."""
    generator = np.random.default_rng(seed)
    scales = 1 / np.arange(1, shape[-1] + 1)
    return (generator.standard_normal(shape) + generator.standard_normal(shape[-1])) * scales


def with_spectrum(spectrum: Array, samples: int, units: int, seed: int = 0) -> Array:
    """Samples whose covariance has exactly the eigenvalues asked for, and zeros."""
    generator = np.random.default_rng(seed)
    ranks = len(spectrum)
    noise = generator.standard_normal((samples, ranks))
    left = np.linalg.qr(noise - noise.mean(0))[0]
    right = np.linalg.qr(generator.standard_normal((units, ranks)))[0]
    return (left * np.sqrt(spectrum * (samples - 1))) @ right.T


def power_law(exponent: float, ranks: int) -> Array:
    return np.arange(1, ranks + 1) ** -exponent


def numpy_spectrum(x: Array) -> Array:
    """All eigenvalues of the covariance, descending, by singular values."""
    centered = x - x.mean(-2, keepdims=True)
    return np.linalg.svd(centered, compute_uv=False) ** 2 / (x.shape[-2] - 1)


def numpy_participation_ratio(x: Array) -> Array:
    spectrum = numpy_spectrum(x)
    return spectrum.sum(-1) ** 2 / (spectrum**2).sum(-1)


def numpy_effective_rank(spectrum: Array) -> Array:
    p = spectrum / spectrum.sum(-1, keepdims=True)
    logs = np.log(p, where=p > 0, out=np.zeros_like(p))
    return np.exp(-(p * logs).sum(-1))


def numpy_components(spectrum: Array, fraction: float) -> Array:
    shares = np.cumsum(spectrum, -1) / spectrum.sum(-1, keepdims=True)
    return np.argmax(shares >= fraction, -1) + 1


def numpy_fit(spectrum: Array, first: int, last: int) -> tuple[float, float, float]:
    """Exponent, intercept and r2 of one spectrum."""
    n = np.arange(first, min(last, len(spectrum)) + 1)
    n = n[spectrum[n - 1] != 0]
    y, w = np.log(np.abs(spectrum[n - 1])), 1 / n
    slope, intercept = np.polyfit(np.log(n), y, 1, w=np.sqrt(w))
    residual, total = y - slope * np.log(n) - intercept, y - np.average(y, weights=w)
    return -slope, intercept, 1 - (w * residual**2).sum() / (w * total**2).sum()


def numpy_cvpca(repeat1: Array, repeat2: Array, swaps: Array) -> Array:
    """The published definition step by step, for repeats of full rank."""
    spectra = []
    for swap in swaps:
        first = np.where(swap[:, None], repeat2, repeat1)
        second = np.where(swap[:, None], repeat1, repeat2)
        a, b, _ = np.linalg.svd(first @ first.T)
        kept = min(first.shape)
        projection = first.T @ a[:, :kept] / np.sqrt(b[:kept])
        spectra.append(((first @ projection) * (second @ projection)).sum(0))
    total = np.mean(spectra, 0)
    return total / total.sum()


def swaps_of(shuffles: int, stimuli: int, seed: int) -> Array:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(shuffles, stimuli, generator=generator) < 0.5).numpy()
