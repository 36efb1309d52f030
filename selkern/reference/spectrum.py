"""Covariance eigenspectra and their penalty against a power law."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from selkern import _spectrum_checks as checks
from selkern._checks import Activations
from selkern._layout import result_dtype
from selkern.reference import linalg

# Of squares and their sums, float32 holds those of activations from 1e-15 to 1e18 at this scale.
_SCALE = {torch.float32: 2.0**-8, torch.float64: 1.0}


def covariance(x: Tensor, *, correction: int = 1) -> Tensor:
    r"""Covariance of the units over the samples.

    .. math:: C = \frac{1}{N - \mathrm{correction}} \sum_{n=1}^{N}
                  (x_n - \bar x)(x_n - \bar x)^\top

    Parameters
    ----------
    x : Tensor
        Samples by units, ``[..., N, D]``.
    correction : int, default 1
        Subtracted from the number of samples.

    Returns
    -------
    Tensor
        ``[..., D, D]``: float64 for float64 input, else float32.

    Raises
    ------
    ValueError
        If there are no more samples than `correction`.

    Examples
    --------
    >>> covariance(torch.tensor([[1.0, 0.0], [3.0, 4.0]]))
    tensor([[2., 4.],
            [4., 8.]])
    """
    checks.samples("x", x)
    correction = checks.correction("x", correction, x)
    with _full_precision(x):
        centred = _centred(x)
        return centred.mT @ centred * _unscaled(centred, correction)


def eigenspectrum(x: Tensor, *, correction: int = 1, basis: Tensor | None = None) -> Tensor:
    r"""Eigenvalues of the covariance of the units, in descending order.

    .. math:: C v_n = \lambda_n v_n, \qquad \lambda_1 \ge \lambda_2 \ge \dots

    Where there are fewer samples than units, they are those of the Gram matrix of the samples.
    With a basis they are the variances along its columns, sorted:

    .. math:: \lambda_n = \frac{\lVert X_c v_n \rVert^2}{N - \mathrm{correction}}

    Values of at most 2e-6 (float64: 1e-12) of the largest are rounding, and are 0; so are ranks
    ``N`` and beyond, without a basis. They have no gradient.

    Parameters
    ----------
    x : Tensor
        Samples by units, ``[..., N, D]``.
    correction : int, default 1
        Subtracted from the number of samples.
    basis : Tensor, optional
        Directions ``[D, R]``, in columns. They are constants.

    Returns
    -------
    Tensor
        ``[..., min(N, D)]``, or ``[..., R]`` with a basis: float64 for float64 input, else float32.

    Raises
    ------
    ValueError
        If there are no more samples than `correction`.

    Examples
    --------
    >>> x = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> eigenspectrum(x, correction=0)
    tensor([2.0000, 0.5000])
    >>> eigenspectrum(x, correction=0, basis=torch.tensor([[0.0], [1.0]]))
    tensor([0.5000])
    """
    checks.samples("x", x)
    correction = checks.correction("x", correction, x)
    return _eigenspectrum(x, correction, checks.basis("basis", basis, x))


def power_law_penalty(
    spectrum: Tensor,
    *,
    exponent: float = 1.0,
    anchor: int = 11,
    width: int | None = None,
    kappa: float | Tensor | None = None,
) -> Tensor:
    r"""Distance of a spectrum from a power law through one of its ranks.

    .. math::

        \frac{1}{\mathrm{width}} \sum_{n > a,\ \lambda_n > 0}
            \left[ r_n^2 + \max(0, r_n) \right], \qquad
        r_n = \frac{\lambda_n}{\gamma_n} - 1, \qquad
        \gamma_n = \kappa n^{-\alpha}, \qquad \kappa = \lambda_a a^\alpha

    with :math:`a` the anchor and :math:`\alpha` the exponent. :math:`\kappa` is held constant.
    Where it is 0, so are the penalty and its gradient.

    Parameters
    ----------
    spectrum : Tensor
        Eigenvalues ``[..., R]``, in descending order.
    exponent : float, default 1.0
        Exponent of the power law.
    anchor : int, default 11
        Rank, counted from 1, where the power law meets the spectrum. Later ranks are penalised.
    width : int, optional
        Number that the sum is divided by; the number of ranks where it is left out.
    kappa : float or Tensor, optional
        Variance at rank 1 of the power law, instead of the anchor's: one for all, or ``[...]``.

    Returns
    -------
    Tensor
        ``[...]``: float64 for float64 input, else float32.

    Raises
    ------
    ValueError
        If there is no rank after the anchor.

    Examples
    --------
    >>> power_law_penalty(torch.tensor([4.0, 2.0, 2.0]), anchor=1)
    tensor(0.2500)
    """
    checks.spectrum("spectrum", spectrum)
    exponent, anchor = checks.exponent(exponent), checks.anchor(anchor)
    checks.enough_ranks("spectrum", spectrum.shape[-1], anchor)
    width = checks.width(width, spectrum.shape[-1])
    constant = checks.kappa("kappa", kappa, spectrum.shape[:-1], spectrum)
    return _penalty(spectrum.to(result_dtype(spectrum.dtype)), exponent, anchor, width, constant)


def spectral_loss(
    activations: Activations,
    *,
    exponent: float = 1.0,
    anchor: int = 11,
    basis: Any = None,
    kappa: Any = None,
) -> Tensor:
    r"""Penalty on the eigenspectrum of each layer, averaged over the layers.

    .. math:: \frac{1}{L} \sum_{l=1}^{L} \frac{1}{D_l} \sum_{n > a,\ \lambda_{ln} > 0}
                  \left[ r_{ln}^2 + \max(0, r_{ln}) \right]

    with the terms of :func:`power_law_penalty`.

    Parameters
    ----------
    activations : Tensor, sequence of Tensor or mapping of Tensor
        Activations of every layer ``[N, ...]``, which are flattened to ``[N, D]``.
    exponent : float, default 1.0
        Exponent of the power law.
    anchor : int, default 11
        Rank where the power law meets the spectrum.
    basis : Tensor, or one per layer, optional
        Directions ``[D, R]`` in which variance is measured, in place of the eigenvectors.
    kappa : float or Tensor, or one per layer, optional
        Variance at rank 1 of the power law, instead of the anchor's.

    Returns
    -------
    Tensor
        Mean penalty, a scalar.

    Raises
    ------
    ValueError
        If a layer has no rank after the anchor, as in a short last batch.

    Examples
    --------
    >>> x = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> spectral_loss([x, x], anchor=1)
    tensor(0.1250)
    """
    return spectral_loss_of_layers(
        activations, exponent=exponent, anchor=anchor, basis=basis, kappa=kappa
    )[0]


def spectral_loss_of_layers(
    activations: Tensor | Sequence[Tensor] | Mapping[str, Tensor],
    *,
    exponent: float = 1.0,
    anchor: int = 11,
    basis: Any = None,
    kappa: Any = None,
) -> tuple[Tensor, list[Tensor]]:
    """Return :func:`spectral_loss` and the spectrum of each layer."""
    names, layers = checks.layers(activations)
    exponent, anchor = checks.exponent(exponent), checks.anchor(anchor)
    bases = checks.one_per_layer("basis", basis, activations)
    kappas = checks.one_per_layer("kappa", kappa, activations)
    penalties, spectra = [], []
    for name, x, of_basis, of_kappa in zip(names, layers, bases, kappas):
        directions = checks.basis(*of_basis, x)
        constant = checks.kappa(*of_kappa, (), x)
        ranks = min(x.shape) if directions is None else directions.shape[1]
        checks.enough_ranks(name, ranks, anchor, x)
        checks.enough_samples(name, x, 1)
        spectrum = _eigenspectrum(x, 1, directions)
        penalties.append(_penalty(spectrum, exponent, anchor, x.shape[1], constant))
        spectra.append(spectrum)
    dtype = result_dtype(*(penalty.dtype for penalty in penalties))
    return torch.stack([penalty.to(dtype) for penalty in penalties]).mean(), spectra


def _full_precision(x: Tensor) -> torch.autocast:
    return torch.autocast(x.device.type, enabled=False)


def _centred(x: Tensor) -> Tensor:
    """Return the scaled difference from the mean over the samples."""
    x = x.to(result_dtype(x.dtype))
    x = x * _SCALE[x.dtype]
    # The first mean is rounded, by more than the spread where the mean is far from zero.
    x = x - x.mean(-2, keepdim=True)
    return x - x.mean(-2, keepdim=True)


def _unscaled(centred: Tensor, correction: int) -> float:
    """Return what turns sums of products of centred values into covariances."""
    return 1 / (_SCALE[centred.dtype] ** 2 * (centred.shape[-2] - correction))


def _eigenspectrum(x: Tensor, correction: int, basis: Tensor | None) -> Tensor:
    with _full_precision(x):
        centred = _centred(x)
        if basis is not None:
            sums = (centred @ basis).square().sum(-2)
            spectrum = sums.sort(dim=-1, descending=True, stable=True).values
        else:
            spectrum = _squared_singular_values(centred)
        return _without_rounding(spectrum) * _unscaled(centred, correction)


def _squared_singular_values(centred: Tensor) -> Tensor:
    """Return squared singular values, descending; that of rank N is 0, because of the mean."""
    samples, units = centred.shape[-2:]
    products = centred @ centred.mT if samples < units else centred.mT @ centred
    values = linalg.eigenvalues(products, torch.float64).flip(-1)
    if samples > units:
        return values
    rank = torch.arange(1, values.shape[-1] + 1, device=values.device)
    return torch.where((rank == samples) & ~values.isnan(), 0.0, values)


def _without_rounding(spectrum: Tensor) -> Tensor:
    is_rounding = spectrum <= linalg.ROUNDING[spectrum.dtype] * spectrum[..., :1]
    return torch.where(is_rounding, 0.0, spectrum)


def _penalty(
    spectrum: Tensor, exponent: float, anchor: int, width: int, kappa: Tensor | None
) -> Tensor:
    rank = torch.arange(1, spectrum.shape[-1] + 1, device=spectrum.device)
    if kappa is None:
        at_anchor, growth = spectrum[..., anchor - 1].detach(), rank.double() / anchor
    else:
        at_anchor, growth = kappa, rank.double()
    # All of a spectrum that is not finite counts, so that its derivatives are NaN.
    is_finite = spectrum.isfinite().all(-1, keepdim=True)
    spectrum = spectrum * torch.where(is_finite, 1.0, torch.nan)
    is_counted = ((spectrum > 0) & (rank > anchor) & (at_anchor != 0).unsqueeze(-1)) | ~is_finite
    law = torch.where(at_anchor == 0, 1.0, at_anchor).unsqueeze(-1)
    ratio = spectrum / law * growth.pow(exponent).to(spectrum.dtype)
    excess = torch.where(is_counted, ratio, 1.0) - 1
    return (excess.square() + excess.relu()).sum(-1) / width
