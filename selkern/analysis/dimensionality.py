"""How many dimensions activations, and their changes, take up."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from selkern import _checks
from selkern.analysis import _arrays
from selkern.analysis._arrays import Array, TensorOrArray

__all__ = [
    "PerturbationDimensionality",
    "components_for_variance",
    "effective_rank",
    "participation_ratio",
    "perturbation_dimensionality",
]

NOT_FINITE = -1
ROUNDING = {torch.float32: 1e-7, torch.float64: 1e-15}


class PerturbationDimensionality(NamedTuple):
    """What :func:`perturbation_dimensionality` found."""

    components: TensorOrArray
    """Number of principal components, int64."""
    relative: TensorOrArray
    """The same, divided by the number of units."""


def participation_ratio(x: Array) -> Array:
    r"""Dimensionality of activations as the participation ratio of their covariance.

    .. math:: \mathrm{PR} = \frac{(\operatorname{tr} C)^2}{\lVert C \rVert_F^2}
              = \frac{(\sum_n \lambda_n)^2}{\sum_n \lambda_n^2}

    with :math:`C` the covariance of ``x``. It is ``D`` where all directions vary alike, and 1 where
    a single one varies. Nothing is decomposed, and where there are fewer samples than units, the
    matrix of the samples' products takes the place of the covariance.

    Parameters
    ----------
    x : Tensor or array
        Activations ``[..., N, D]``, samples by units; float16, bfloat16, float32 or float64.

    Returns
    -------
    Tensor or array
        ``[...]``, float64 for float64 ``x`` and float32 otherwise. It is 0 where nothing varies.

    Raises
    ------
    TypeError
        If ``x`` is not a floating tensor or array.
    ValueError
        If ``x`` has fewer than 2 axes or fewer than 2 samples.

    Examples
    --------
    >>> participation_ratio(torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]))
    tensor(2.)
    """
    _arrays.check("x", x, "..., N, D")
    products = _arrays.products(_arrays.samples("x", _arrays.doubles(x)))
    trace = products.diagonal(dim1=-2, dim2=-1).sum(-1)
    # Of the trace's order first, because squares of squares under- and overflow early.
    shares = products / torch.where(trace == 0, 1, trace)[..., None, None]
    ratio = torch.where(trace == 0, 0, 1 / shares.square().sum((-2, -1)))
    return _arrays.like(ratio, x)


def effective_rank(spectrum: Array) -> Array:
    r"""Effective number of components of a spectrum: the exponential of its entropy.

    .. math:: \exp\Bigl(-\sum_n p_n \log p_n\Bigr), \qquad p_n = \lambda_n / \sum_m \lambda_m

    Parameters
    ----------
    spectrum : Tensor or array
        Variances ``[..., R]`` in any order; float16, bfloat16, float32 or float64. Values below 0,
        which rounding leaves, count as 0.

    Returns
    -------
    Tensor or array
        ``[...]``, float64 for float64 ``spectrum`` and float32 otherwise. It is 0 where all
        variances are.

    Raises
    ------
    TypeError
        If ``spectrum`` is not a floating tensor or array.
    ValueError
        If ``spectrum`` has no axis.

    Examples
    --------
    >>> effective_rank(torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0]]))
    tensor([4., 1.])
    """
    _arrays.check("spectrum", spectrum, "..., R")
    variances = _arrays.doubles(spectrum).clamp(min=0)
    total = variances.sum(-1)
    entropy = torch.special.entr(variances / torch.where(total == 0, 1, total)[..., None]).sum(-1)
    return _arrays.like(torch.where(total == 0, 0, entropy.exp()), spectrum)


def components_for_variance(spectrum: Array, fraction: float) -> Array:
    r"""Number of leading components that hold a fraction of the variance.

    .. math:: \min \Bigl\{k : \sum_{n \le k} \lambda_n \ge f \sum_n \lambda_n\Bigr\}

    Parameters
    ----------
    spectrum : Tensor or array
        Variances ``[..., R]``, descending; float16, bfloat16, float32 or float64.
    fraction : float
        The fraction :math:`f`, above 0 and at most 1. A sum that falls short of it by no more than
        the rounding of ``spectrum`` (1e-7 of the sum, 1e-15 in float64) reaches it.

    Returns
    -------
    Tensor or array
        int64 ``[...]``: 0 where all variances are 0, and -1 where one is not finite.

    Raises
    ------
    TypeError
        If ``spectrum`` is not a floating tensor or array, or ``fraction`` not a number.
    ValueError
        If ``spectrum`` has no axis, or ``fraction`` is out of range.

    Examples
    --------
    >>> components_for_variance(torch.tensor([6.0, 3.0, 1.0]), 0.9)
    tensor(2)
    """
    _arrays.check("spectrum", spectrum, "..., R")
    fraction = _fraction(fraction)
    dtype = _arrays.result_dtype_of(spectrum)
    components = _components(_arrays.doubles(spectrum), fraction, dtype)
    return _arrays.same_kind(components, spectrum)


def perturbation_dimensionality(
    clean: Array, perturbed: Array, fraction: float = 0.95
) -> PerturbationDimensionality:
    r"""Dimensionality of the change that a perturbation makes to a representation.

    The measure of Leavitt & Morcos (arXiv 2007.04440): the number of principal components that
    hold a fraction of the variance of ``clean - perturbed``. Feature maps are averaged over
    positions first.

    .. math:: \min \Bigl\{k : \sum_{n \le k} \lambda_n \ge f \sum_n \lambda_n\Bigr\}, \qquad
              \lambda = \operatorname{eig} \operatorname{cov}(m^{\mathrm{clean}} -
              m^{\mathrm{perturbed}})

    Parameters
    ----------
    clean, perturbed : Tensor or array
        Activations ``[N, C]`` to ``[N, C, D, H, W]`` of the same samples in the same order;
        float16, bfloat16, float32 or float64.
    fraction : float, default 0.95
        The fraction :math:`f`, above 0 and at most 1.

    Returns
    -------
    PerturbationDimensionality
        ``components``, int64, and ``relative``, that divided by the number of units, float64 if
        either input is and float32 otherwise. Both are 0 where nothing changed by more than a
        constant; -1 and NaN where an activation is not finite.

    Raises
    ------
    TypeError
        If the activations are not both floating tensors or both floating arrays, or ``fraction``
        is not a number.
    ValueError
        If the activations differ in shape or device, have not 2 to 5 axes, fewer than 2 samples or
        no unit, or ``fraction`` is out of range.

    Examples
    --------
    >>> clean = torch.zeros(4, 8)
    >>> perturbed = torch.eye(4, 8)
    >>> perturbation_dimensionality(clean, perturbed, fraction=0.9)
    PerturbationDimensionality(components=tensor(3), relative=tensor(0.3750))
    """
    _arrays.check_pair(("clean", "perturbed"), (clean, perturbed), "N, C, ...")
    fraction = _fraction(fraction)
    units = clean.shape[1]
    if len(clean.shape) > 5 or units == 0:
        raise ValueError(
            f"clean must have 2 to 5 axes, [N, C, ...], and a unit, got shape {tuple(clean.shape)}"
        )
    change = _arrays.doubles(clean) - _arrays.doubles(perturbed)
    change = change if change.dim() == 2 else change.flatten(2).mean(2)
    products = _arrays.products(_arrays.samples("clean", change))
    finite = products.isfinite().all()
    # LAPACK's solvers refuse what is not finite.
    spectrum = torch.linalg.eigvalsh(torch.where(finite, products, 0)).flip(-1)
    spectrum = torch.where(finite, spectrum, torch.nan)
    components = _components(spectrum, fraction, torch.float64)
    relative = torch.where(finite, components.double() / units, torch.nan)
    return PerturbationDimensionality(
        _arrays.same_kind(components, clean), _arrays.like(relative, clean, perturbed)
    )


def _fraction(value: Any) -> float:
    fraction = _checks.real("fraction", value)
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be above 0 and at most 1, got {value}")
    return fraction


def _components(spectrum: Tensor, fraction: float, dtype: torch.dtype) -> Tensor:
    """Leading entries of each spectrum whose sum reaches the fraction, but for rounding to dtype.

    0 where all are 0, and -1 where one is not finite.
    """
    sums = spectrum.cumsum(-1)
    total = spectrum.sum(-1)
    count = 1 + (sums < (fraction - ROUNDING[dtype]) * total[..., None]).sum(-1)
    count = torch.where(total == 0, 0, count)
    return torch.where(total.isfinite(), count, NOT_FINITE)
