"""Covariance eigenspectra and their penalty against a power law."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from selkern import _spectrum_checks as checks
from selkern._checks import Activations
from selkern._layout import result_dtype
from selkern.reference._spectrum import (
    centered_samples,
    full_precision,
    penalty,
    spectral_loss_of_layers,
    unscaled,
)
from selkern.reference._spectrum import eigenspectrum as spectrum_of

__all__ = ["covariance", "eigenspectrum", "power_law_penalty", "spectral_loss"]


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
    with full_precision(x):
        centered = centered_samples(x)
        return centered.mT @ centered * unscaled(centered, correction)


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
    return spectrum_of(x, correction, checks.basis("basis", basis, x))


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
    checks.enough_ranks("spectrum", spectrum, anchor)
    width = checks.width(width, spectrum.shape[-1])
    constant = checks.kappa("kappa", kappa, spectrum.shape[:-1], spectrum)
    return penalty(spectrum.to(result_dtype(spectrum.dtype)), exponent, anchor, width, constant)


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
    basis : Tensor, or sequence or mapping of Tensor, optional
        Directions ``[D, R]`` in which variance is measured, in place of the eigenvectors: one
        tensor where `activations` is a single tensor, otherwise one for each.
    kappa : float or Tensor, or sequence or mapping of them, optional
        Variance at rank 1 of the power law, instead of the anchor's: one where `activations` is a
        single tensor, otherwise one for each.

    Returns
    -------
    Tensor
        Mean penalty, a scalar.

    Raises
    ------
    ValueError
        If a layer has no rank after the anchor that can be above 0, as in a short last batch.

    Examples
    --------
    >>> x = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> spectral_loss([x, x], anchor=1)
    tensor(0.1250)
    """
    return spectral_loss_of_layers(
        activations, exponent=exponent, anchor=anchor, basis=basis, kappa=kappa
    )[0]
