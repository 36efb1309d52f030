"""Fitting a power law to a spectrum."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from selkern import _checks
from selkern.analysis import _arrays
from selkern.analysis._arrays import Array, TensorOrArray

__all__ = ["PowerLawFit", "fit_power_law"]


class PowerLawFit(NamedTuple):
    """What :func:`fit_power_law` found; one value a spectrum in the first three fields."""

    exponent: TensorOrArray
    """How fast the spectrum falls; 1 is a 1/n spectrum."""
    intercept: TensorOrArray
    """Logarithm of the fitted value at rank 1."""
    r2: TensorOrArray
    """Share of the weighted variance of the logarithms that the line explains."""
    first: int
    """First rank of the fit, counted from 1."""
    last: int
    """Last rank of the fit, the one asked for or the last that there is."""


def fit_power_law(spectrum: Array, first: int = 11, last: int = 500) -> PowerLawFit:
    r"""Fit a power law to a spectrum as Stringer et al. (Nature 571, 2019) did.

    .. math:: \log |\lambda_n| \approx b - \alpha \log n, \qquad n = \mathrm{first}, \dots,
              \mathrm{last}

    by least squares with weights :math:`1/n`, so that every octave of ranks weighs the same.

    Parameters
    ----------
    spectrum : Tensor or array
        Variances ``[..., R]``, descending; float16, bfloat16, float32 or float64. As published, a
        negative value counts by its magnitude: cross-validated spectra have them. Ranks that are
        exactly 0, as :func:`selkern.eigenspectrum` gives for mere rounding, are left out.
    first, last : int, default 11 and 500
        First and last rank of the fit, counted from 1. Where there are fewer than ``last`` ranks,
        the fit ends at the last there is.

    Returns
    -------
    PowerLawFit
        ``exponent``, ``intercept`` (the natural logarithm of the fit at rank 1) and ``r2``, each
        ``[...]``, float64 for float64 ``spectrum`` and float32 otherwise; ``first`` and ``last``,
        the ranks used. Fewer than two ranks that are not 0 give NaN, and ranks that are all alike
        an ``r2`` of NaN.

    Raises
    ------
    TypeError
        If ``spectrum`` is not a floating tensor or array, or a rank not an integer.
    ValueError
        If ``first`` is below 1, or fewer than two ranks lie between ``first`` and ``last``.

    Examples
    --------
    >>> ranks = torch.arange(1.0, 101.0)
    >>> fit = fit_power_law(3 * ranks**-1.5)
    >>> fit.exponent, fit.last
    (tensor(1.5000), 100)
    """
    _arrays.check("spectrum", spectrum, "..., R")
    ranks = spectrum.shape[-1]
    first, last = _checks.integer("first", first), _checks.integer("last", last)
    if first < 1:
        raise ValueError(f"first must be at least 1, got {first}")
    if min(last, ranks) <= first:
        raise ValueError(
            f"spectrum must have at least two ranks from first = {first} to last = {last}, "
            f"got {ranks} ranks"
        )
    last = min(last, ranks)
    values = _arrays.doubles(spectrum)[..., first - 1 : last].abs()
    n = torch.arange(first, last + 1, dtype=torch.float64, device=values.device)
    weights = torch.where(values == 0, 0, 1 / n)
    weights = weights / weights.sum(-1, keepdim=True)
    log_values = torch.where(values == 0, 1, values).log()
    exponent, intercept, r2 = _weighted_line(-n.log(), log_values, weights)
    return PowerLawFit(
        _arrays.like(exponent, spectrum),
        _arrays.like(intercept, spectrum),
        _arrays.like(r2, spectrum),
        first,
        last,
    )


def _weighted_line(x: Tensor, y: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Slope, intercept and coefficient of determination of a line, for weights of sum 1."""
    mean_x, mean_y = (weights * x).sum(-1), (weights * y).sum(-1)
    x, y = x - mean_x[..., None], y - mean_y[..., None]
    slope = (weights * x * y).sum(-1) / (weights * x * x).sum(-1)
    residual = (weights * (y - slope[..., None] * x).square()).sum(-1)
    r2 = 1 - residual / (weights * y * y).sum(-1)
    return slope, mean_y - slope * mean_x, r2
