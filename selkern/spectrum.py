"""Covariance eigenspectra and their penalty against a power law."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from selkern import _basis_autograd, _library, _penalty_autograd, _spectrum_autograd, reference
from selkern import _spectrum_checks as checks
from selkern._checks import Activations
from selkern._layout import result_dtype
from selkern._spectral_loss import spectral_loss_of_layers


def covariance(x: Tensor, *, correction: int = 1) -> Tensor:
    r"""Covariance of units over samples.

    .. math:: C = \frac{1}{N - \mathrm{correction}} \sum_n (x_n - \bar x)(x_n - \bar x)^\top

    Means are taken in float64, on CUDA in compensated float32, so that units far from zero lose
    nothing. On the CPU the product is summed in short runs, so that sparse activations lose nothing
    either; on CUDA it is torch's, and follows torch's settings, but is not lowered by autocast.

    Parameters
    ----------
    x : Tensor
        Samples by units, ``[..., N, D]`` with any leading batch axes; float16, bfloat16, float32 or
        float64.
    correction : int, default 1
        Subtracted from the number of samples in the divisor.

    Returns
    -------
    Tensor
        ``[..., D, D]``, float64 for float64 ``x`` and float32 otherwise.

    Raises
    ------
    TypeError
        If ``x`` is not a floating tensor or ``correction`` not an integer.
    ValueError
        If ``x`` has fewer than 2 axes, or no more samples than ``correction``.

    Examples
    --------
    >>> covariance(torch.tensor([[1.0, 0.0], [3.0, 4.0]]))
    tensor([[2., 4.],
            [4., 8.]])
    """
    checks.samples("x", x)
    correction = checks.correction("x", correction, x)
    if not _library.COMPILED:
        return reference.covariance(x, correction=correction)
    return _spectrum_autograd.covariance(x, correction)


def eigenspectrum(x: Tensor, *, correction: int = 1, basis: Tensor | None = None) -> Tensor:
    r"""Eigenvalues of the covariance of units, largest first.

    .. math:: C v_n = \lambda_n v_n, \qquad \lambda_1 \ge \lambda_2 \ge \dots

    With fewer samples than units, the eigenvalues are those of the Gram matrix of the samples. With
    a ``basis`` :math:`V`, which counts as constant, they are the variances along its columns,
    sorted (the method of Nassar et al., arXiv 2012.04729):

    .. math:: \lambda_n = \lVert X_c v_n \rVert^2 / (N - \mathrm{correction})

    The gradient of a function of the eigenvalues with derivative :math:`g` is
    :math:`\frac{2}{N - \mathrm{correction}} X_c V \operatorname{diag}(g) V^\top`, without any
    difference of eigenvalues, and so finite where they repeat. Second derivatives are exact for
    distinct eigenvalues, and take pairs closer than the tolerance for equal.

    Rounding is no spectrum: values up to 2e-6 (float64: 1e-12) of the largest are 0, and so are,
    without a basis, ranks ``N`` and beyond; they have no gradient. A true eigenvalue within
    rounding of that limit may be kept or dropped, depending on the order of the samples: give
    float64 where a spectrum is as wide as that.

    Parameters
    ----------
    x : Tensor
        Samples by units, ``[..., N, D]`` with any leading batch axes; float16, bfloat16, float32 or
        float64.
    correction : int, default 1
        Subtracted from the number of samples in the divisor.
    basis : Tensor, optional
        Directions ``[D, R]``, in columns, used for every matrix of the batch.

    Returns
    -------
    Tensor
        ``[..., min(N, D)]``, or ``[..., R]`` with a basis: float64 for float64 ``x`` and float32
        otherwise; NaN for a matrix that holds NaN or infinity.

    Raises
    ------
    TypeError
        If ``x`` is not a floating tensor or ``correction`` not an integer.
    ValueError
        If ``x`` has fewer than 2 axes, or no more samples than ``correction``, or ``basis`` does
        not fit.

    Examples
    --------
    >>> x = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> eigenspectrum(x, correction=0)
    tensor([2.0000, 0.5000])
    """
    checks.samples("x", x)
    correction = checks.correction("x", correction, x)
    directions = checks.basis("basis", basis, x)
    if not _library.COMPILED:
        return reference.eigenspectrum(x, correction=correction, basis=directions)
    if directions is None:
        return _spectrum_autograd.eigenspectra([x], correction)[0]
    return _basis_autograd.basis_spectrum(x, directions, correction)


def power_law_penalty(
    spectrum: Tensor,
    *,
    exponent: float = 1.0,
    anchor: int = 11,
    width: int | None = None,
    kappa: float | Tensor | None = None,
) -> Tensor:
    r"""Distance of a spectrum from a power law, at the ranks beyond an anchor.

    .. math::

        \frac{1}{\mathrm{width}} \sum_{n > a,\ \lambda_n > 0}
            \left[ r_n^2 + \max(0, r_n) \right], \qquad
        r_n = \frac{\lambda_n}{\gamma_n} - 1, \qquad
        \gamma_n = \kappa n^{-\alpha}, \qquad \kappa = \lambda_a a^\alpha

    (Nassar et al., arXiv 2012.04729), with :math:`a` the anchor and :math:`\alpha` the exponent.
    :math:`\kappa` counts as constant, so that finite differences agree with the gradient only where
    it is given. Where it is 0, so are the penalty and its gradient.

    Parameters
    ----------
    spectrum : Tensor
        Eigenvalues ``[..., R]``, largest first; float16, bfloat16, float32 or float64.
    exponent : float, default 1.0
        Exponent of the power law.
    anchor : int, default 11
        Rank, counted from 1, at which the law meets the spectrum. Later ranks are penalised.
    width : int, optional
        What the sum is divided by; the number of ranks where it is left out.
    kappa : float or Tensor, optional
        Value of the law at rank 1, in place of the anchor's: one for all, or ``[...]``.

    Returns
    -------
    Tensor
        ``[...]``, float64 for float64 ``spectrum`` and float32 otherwise; NaN for a spectrum that
        holds NaN or infinity.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If there is no rank after the anchor, or another value does not fit.

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
    if not _library.COMPILED:
        return reference.power_law_penalty(
            spectrum, exponent=exponent, anchor=anchor, width=width, kappa=constant
        )
    values = spectrum.to(result_dtype(spectrum.dtype))
    return _penalty_autograd.power_law_penalty(values, constant, exponent, anchor, width)


def spectral_loss(
    activations: Activations,
    *,
    exponent: float = 1.0,
    anchor: int = 11,
    basis: Tensor | Sequence[Tensor] | Mapping[str, Tensor] | None = None,
    kappa: float | Tensor | Sequence[Any] | Mapping[str, Any] | None = None,
) -> Tensor:
    r"""Penalty on the eigenspectrum of every layer, averaged over the layers.

    .. math:: \frac{1}{L} \sum_l \frac{1}{D_l} \sum_{n > a,\ \lambda_{ln} > 0}
                  \left[ r_{ln}^2 + \max(0, r_{ln}) \right]

    with the terms of :func:`power_law_penalty` (Nassar et al., arXiv 2012.04729), of the covariance
    over the batch. Ranks up to the smaller of ``N - 1`` and ``D`` can be above 0, and the sum over
    them is divided by ``D`` whatever ``N`` is: the penalty of a batch of fewer samples than units
    is smaller.

    Parameters
    ----------
    activations : Tensor, sequence of Tensor or mapping of Tensor
        Activations of every layer, ``[N, ...]``, flattened to ``[N, D]``; float16, bfloat16,
        float32 or float64.
    exponent : float, default 1.0
        Exponent of the power law.
    anchor : int, default 11
        Rank, counted from 1, at which the law meets the spectrum.
    basis : Tensor, or sequence or mapping of Tensor, optional
        Directions ``[D, R]``: one tensor where ``activations`` is a single tensor, otherwise one
        for each of them, or None for some. Variances are taken along them in place of an
        eigendecomposition: the published method, with eigenvectors of the whole data set. They
        count as constant.
    kappa : float or Tensor, or sequence or mapping of them, optional
        Value of the law at rank 1 in place of the anchor's: one number where ``activations`` is a
        single tensor, otherwise one for each of them, or None for some.

    Returns
    -------
    Tensor
        A scalar, float64 if a layer is and float32 otherwise.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If a layer has no rank after the anchor that can be above 0: ``min(N - 1, D)`` of at most
        ``anchor``, as with a short last batch, or a basis of so few directions. If another value
        does not fit.

    Examples
    --------
    >>> x = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> spectral_loss([x, x], anchor=1)
    tensor(0.1250)
    """
    return spectral_loss_of_layers(
        activations, exponent=exponent, anchor=anchor, basis=basis, kappa=kappa
    )[0]


__all__ = ["covariance", "eigenspectrum", "power_law_penalty", "spectral_loss"]
