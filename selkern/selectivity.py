"""Class means and the class selectivity index of Leavitt & Morcos (2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from selkern import _checks, _library, reference
from selkern._checks import Activations
from selkern._selectivity_autograd import class_means_of_rows, selectivity_of_maps
from selkern._selectivity_loss import selectivity_of_layers
from selkern.pooling import spatial_mean

__all__ = [
    "class_means",
    "mean_selectivity",
    "selectivity_index",
    "selectivity_index_from_means",
]


def class_means(
    x: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    unit_dim: int = 1,
    ignore_index: int = -100,
) -> tuple[Tensor, Tensor]:
    r"""Mean activation of each unit over the samples of each class.

    .. math:: \mu_{kc} = \frac{1}{|S_k|} \sum_{n \in S_k} m_{nc}, \qquad
              S_k = \{n : \mathrm{label}_n = k\}

    with :math:`m` the :func:`spatial_mean` of ``x``.

    Parameters
    ----------
    x : Tensor
        Activations ``[N, C]`` to ``[N, C, D, H, W]``; float16, bfloat16, float32 or float64.
    labels : Tensor
        Class of each sample, int64 or int32 ``[N]``, in ``[0, num_classes)`` or ``ignore_index``.
    num_classes : int
        Number of classes ``K``.
    unit_dim : int, default 1
        Axis of the units; ``-1`` for tokens ``[N, T, C]``.
    ignore_index : int, default -100
        Samples with this label take no part.

    Returns
    -------
    means : Tensor
        ``[K, C]``, float64 for float64 ``x`` and float32 otherwise. Rows of absent classes are 0.
    counts : Tensor
        Samples of each class, int64 ``[K]``.

    Raises
    ------
    TypeError
        If ``x`` is not a floating tensor, ``labels`` not an int64 or int32 tensor, or another
        argument not an integer.
    ValueError
        If a shape, axis or device does not fit, or a label is out of range: the message names the
        first such label and its row. On CUDA, where looking would mean waiting, all results are
        NaN instead, unless ``SELKERN_CHECK=1`` is in the environment.

    Examples
    --------
    >>> x = torch.tensor([[1.0], [3.0], [5.0]])
    >>> means, counts = class_means(x, torch.tensor([0, 0, 1]), 3)
    >>> means
    tensor([[2.],
            [5.],
            [0.]])
    >>> counts
    tensor([2, 1, 0])
    """
    _checks.activation("x", x)
    axis = _checks.unit_axis("unit_dim", unit_dim, x)
    _checks.labels(labels, x.shape[0], x.device)
    num_classes = _checks.num_classes(num_classes)
    ignore_index = _checks.ignore_index(ignore_index)
    if not _library.COMPILED:
        return reference.class_means(
            x, labels, num_classes, unit_dim=axis, ignore_index=ignore_index
        )
    means = x if x.dim() == 2 else spatial_mean(x, unit_dim=axis)
    return class_means_of_rows(means, labels, num_classes, ignore_index)


def selectivity_index(
    x: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    unit_dim: int = 1,
    eps: float = 1e-6,
    ignore_index: int = -100,
) -> Tensor:
    r"""Class selectivity index of each unit (Leavitt & Morcos, arXiv 2007.04440).

    .. math:: \mathrm{SI}_c = \frac{\mu_{\max} - \mu_{\mathrm{rest}}}
                                   {\mu_{\max} + \mu_{\mathrm{rest}} + \epsilon}

    with :math:`\mu_{\max}` the largest of the unit's :func:`class_means` and
    :math:`\mu_{\mathrm{rest}}` the mean of those of the other classes present. Classes that are
    absent from the batch are left out. A unit whose class means are all 0, and every unit where
    fewer than two classes are present, has index 0 and gradient 0. Where classes tie for the
    maximum, the lowest takes the gradient. Meant for non-negative activations: the formula is
    evaluated as it stands for signed ones.

    Parameters
    ----------
    x, labels, num_classes, unit_dim, ignore_index
        As for :func:`class_means`.
    eps : float, default 1e-6
        Added to the denominator.

    Returns
    -------
    Tensor
        ``[C]``, float64 for float64 ``x`` and float32 otherwise.

    Raises
    ------
    TypeError, ValueError
        As for :func:`class_means`; ``eps`` must be finite and at least 0.

    Examples
    --------
    >>> x = torch.tensor([[3.0, 1.0], [1.0, 1.0]])
    >>> selectivity_index(x, torch.tensor([0, 1]), 2)
    tensor([0.5000, 0.0000])
    """
    _checks.activation("x", x)
    axis = _checks.unit_axis("unit_dim", unit_dim, x)
    _checks.labels(labels, x.shape[0], x.device)
    num_classes = _checks.num_classes(num_classes)
    eps = _checks.epsilon(eps)
    ignore_index = _checks.ignore_index(ignore_index)
    if not _library.COMPILED:
        return reference.selectivity_index(
            x, labels, num_classes, unit_dim=axis, eps=eps, ignore_index=ignore_index
        )
    return selectivity_of_maps([x], [axis], labels, num_classes, eps, ignore_index)[2]


def selectivity_index_from_means(
    means: Tensor, counts: Tensor | None = None, *, eps: float = 1e-6
) -> Tensor:
    r"""Class selectivity index of each unit from its class means.

    :func:`selectivity_index` of a whole data set, whose class means were gathered batch by batch.

    Parameters
    ----------
    means : Tensor
        Class means ``[K, C]``; float16, bfloat16, float32 or float64.
    counts : Tensor, optional
        Samples of each class, int64 or int32 ``[K]``: rows with count 0 are left out. Without it
        every row counts as present.
    eps : float, default 1e-6
        Added to the denominator.

    Returns
    -------
    Tensor
        ``[C]``, float64 for float64 ``means`` and float32 otherwise.

    Raises
    ------
    TypeError
        If ``means`` is not a floating tensor, ``counts`` not an int64 or int32 tensor, or ``eps``
        not a number.
    ValueError
        If a shape or device does not fit, or ``eps`` is negative or not finite.

    Examples
    --------
    >>> selectivity_index_from_means(torch.tensor([[3.0], [1.0], [0.0]]), torch.tensor([4, 4, 0]))
    tensor([0.5000])
    """
    _checks.activation("means", means)
    if means.dim() != 2:
        raise ValueError(f"means must have shape [K, C], got {list(means.shape)}")
    if counts is not None:
        _checks.counts(counts, means)
    eps = _checks.epsilon(eps)
    if not _library.COMPILED:
        return reference.selectivity_index_from_means(means, counts, eps=eps)
    absent = -1
    classes = torch.arange(means.shape[0], device=means.device)
    if counts is not None:
        classes = torch.where(counts > 0, classes, absent)
    # Every row is the only sample of its class.
    return selectivity_of_maps([means], [1], classes, max(1, means.shape[0]), eps, absent)[2]


def mean_selectivity(
    activations: Activations,
    labels: Tensor,
    num_classes: int,
    *,
    unit_dim: int | Sequence[int] | Mapping[str, int] = 1,
    eps: float = 1e-6,
    ignore_index: int = -100,
) -> Tensor:
    r"""Selectivity index averaged over the units of each layer, then over the layers.

    .. math:: \frac{1}{L} \sum_l \frac{1}{C_l} \sum_{c=1}^{C_l} \mathrm{SI}_{lc}

    The term that Leavitt & Morcos (arXiv 2007.04440) subtract, times alpha, from the loss. All
    layers are taken at once, and nothing as large as an activation is kept for the backward.

    Parameters
    ----------
    activations : Tensor, sequence or mapping of Tensor
        One entry a layer, each as for :func:`class_means`; sizes and dtypes may differ. Entries
        ``[N, C]`` count as averaged over positions already, such as the means that
        :func:`relu_with_mean` returns.
    labels, num_classes, ignore_index
        As for :func:`class_means`.
    unit_dim : int, or one int an entry, default 1
        Axis of the units; a mapping where ``activations`` is one.
    eps : float, default 1e-6
        Added to the denominator of the index.

    Returns
    -------
    Tensor
        A scalar, float64 if any entry is float64 and float32 otherwise.

    Raises
    ------
    TypeError, ValueError
        As for :func:`class_means`, naming the entry; also ValueError for no entries, an entry
        without units, or entries that differ in samples or device.

    Examples
    --------
    >>> layers = [torch.tensor([[3.0], [1.0]]), torch.tensor([[1.0], [1.0]])]
    >>> mean_selectivity(layers, torch.tensor([0, 1]), 2)
    tensor(0.2500)
    """
    return selectivity_of_layers(
        activations, labels, num_classes, unit_dim=unit_dim, eps=eps, ignore_index=ignore_index
    )[0]
