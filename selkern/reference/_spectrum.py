"""The formulas behind the functions of spectra."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from selkern import _spectrum_checks as checks
from selkern._checks import Activations
from selkern._layout import result_dtype
from selkern.reference import linalg

# Of squares and their sums, float32 holds those of activations from 1e-15 to 1e18 at this scale.
_SCALE = {torch.float32: 2.0**-8, torch.float64: 1.0}


def spectral_loss_of_layers(
    activations: Activations, *, exponent: float, anchor: int, basis: Any, kappa: Any
) -> tuple[Tensor, list[Tensor]]:
    """Return :func:`selkern.reference.spectral_loss` and the spectrum of each layer."""
    exponent, anchor = checks.exponent(exponent), checks.anchor(anchor)
    layers = checks.spectral_layers(activations, anchor, basis, kappa)
    spectra = [eigenspectrum(layer.x, 1, layer.basis) for layer in layers]
    penalties = [
        penalty(spectrum, exponent, anchor, layer.x.shape[1], layer.kappa)
        for spectrum, layer in zip(spectra, layers)
    ]
    dtype = result_dtype(*(of_layer.dtype for of_layer in penalties))
    return torch.stack([of_layer.to(dtype) for of_layer in penalties]).mean(), spectra


def full_precision(x: Tensor) -> torch.autocast:
    """Keep autocast from lowering the matrix products of ``x``."""
    return torch.autocast(x.device.type, enabled=False)


def centered_samples(x: Tensor) -> Tensor:
    """Return the scaled difference from the mean over the samples."""
    x = x.to(result_dtype(x.dtype))
    x = x * _SCALE[x.dtype]
    # The first mean is rounded, by more than the spread where the mean is far from zero.
    x = x - x.mean(-2, keepdim=True)
    return x - x.mean(-2, keepdim=True)


def unscaled(centered: Tensor, correction: int) -> float:
    """Return what turns sums of products of centered values into covariances."""
    return 1 / (_SCALE[centered.dtype] ** 2 * (centered.shape[-2] - correction))


def eigenspectrum(x: Tensor, correction: int, basis: Tensor | None) -> Tensor:
    """Return the spectrum ``[..., R]`` of ``x``, largest first and without rounding."""
    with full_precision(x):
        centered = centered_samples(x)
        if basis is not None:
            sums = (centered @ basis).square().sum(-2)
            spectrum = sums.sort(dim=-1, descending=True, stable=True).values
        else:
            spectrum = _squared_singular_values(centered)
        return _without_rounding(spectrum) * unscaled(centered, correction)


def _squared_singular_values(centered: Tensor) -> Tensor:
    """Return squared singular values, descending; that of rank N is 0, because of the mean."""
    samples, units = centered.shape[-2:]
    products = centered @ centered.mT if samples < units else centered.mT @ centered
    values = linalg.eigenvalues(products, torch.float64).flip(-1)
    if samples > units:
        return values
    rank = torch.arange(1, values.shape[-1] + 1, device=values.device)
    return torch.where((rank == samples) & ~values.isnan(), 0.0, values)


def _without_rounding(spectrum: Tensor) -> Tensor:
    largest = spectrum[..., :1]
    # Not where the largest has overflowed: infinity times the tolerance is infinity.
    is_rounding = (spectrum <= linalg.ROUNDING[spectrum.dtype] * largest) & ~largest.isinf()
    return torch.where(is_rounding, 0.0, spectrum)


def penalty(
    spectrum: Tensor, exponent: float, anchor: int, width: int, kappa: Tensor | None
) -> Tensor:
    """Return the penalty ``[...]`` of each spectrum ``[..., R]``."""
    rank = torch.arange(1, spectrum.shape[-1] + 1, device=spectrum.device)
    if kappa is None:
        at_anchor, growth = spectrum[..., anchor - 1 : anchor].detach(), rank.double() / anchor
    else:
        at_anchor, growth = kappa.unsqueeze(-1), rank.double()
    # All of a spectrum counts that is not finite, or has such a law, so that its derivatives are
    # NaN.
    is_finite = spectrum.isfinite().all(-1, keepdim=True) & at_anchor.isfinite()
    spectrum = spectrum * torch.where(is_finite, 1.0, torch.nan)
    is_counted = ((spectrum > 0) & (rank > anchor) & (at_anchor > 0)) | ~is_finite
    law = torch.where(at_anchor > 0, at_anchor, 1.0)
    ratio = spectrum / law * growth.pow(exponent).to(spectrum.dtype)
    excess = torch.where(is_counted, ratio, 1.0) - 1
    return (excess.square() + excess.relu()).sum(-1) / width
