"""The spectral loss with the spectra that it is of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from selkern import _basis_autograd, _library, _penalty_autograd, _spectrum_autograd
from selkern import _spectrum_checks as checks
from selkern._checks import Activations
from selkern._layout import result_dtype
from selkern.reference import _spectrum as plain


def spectral_loss_of_layers(
    activations: Activations, *, exponent: float, anchor: int, basis: Any, kappa: Any
) -> tuple[Tensor, list[Tensor]]:
    """Return :func:`selkern.spectral_loss` and the spectrum of each layer."""
    if not _library.COMPILED:
        return plain.spectral_loss_of_layers(
            activations, exponent=exponent, anchor=anchor, basis=basis, kappa=kappa
        )
    exponent, anchor = checks.exponent(exponent), checks.anchor(anchor)
    layers = checks.spectral_layers(activations, anchor, basis, kappa)
    # Layers of one size are solved together.
    exact = [layer.x for layer in layers if layer.basis is None]
    exact_spectra = iter(_spectrum_autograd.eigenspectra(exact, 1) if exact else ())
    penalties, spectra = [], []
    for x, directions, constant in layers:
        if directions is not None:
            penalty, spectrum = _basis_autograd.basis_penalty(
                x, directions, constant, exponent, anchor
            )
        else:
            spectrum = next(exact_spectra)
            penalty = _penalty_autograd.power_law_penalty(
                spectrum, constant, exponent, anchor, x.shape[1]
            )
        penalties.append(penalty)
        spectra.append(spectrum)
    if len(penalties) == 1:
        return penalties[0], spectra
    dtype = result_dtype(*(penalty.dtype for penalty in penalties))
    return torch.stack([penalty.to(dtype) for penalty in penalties]).mean(), spectra
