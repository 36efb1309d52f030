"""Class means and the class selectivity index."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from selkern._layout import result_dtype
from selkern.reference.pooling import spatial_mean

__all__ = ["class_means", "mean_selectivity", "selectivity_index", "selectivity_index_from_means"]


def class_means(
    x: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    unit_dim: int = 1,
    ignore_index: int = -100,
) -> tuple[Tensor, Tensor]:
    r"""Average every unit over the samples of each class.

    With :math:`m` the spatial mean of `x` and :math:`S_k` the samples of class
    :math:`k`,

    .. math:: \mu_{kc} = \frac{1}{|S_k|} \sum_{n \in S_k} m_{nc}

    Parameters
    ----------
    x : Tensor
        Activations, samples first, with two to five dimensions.
    labels : Tensor
        Class of every sample, int32 or int64 of shape ``[N]``.
    num_classes : int
        Number of classes ``K``.
    unit_dim : int, default 1
        Axis of the units.
    ignore_index : int, default -100
        Samples with this label take no part.

    Returns
    -------
    means : Tensor
        Class means of shape ``[K, C]``; zero for a class without samples.
    counts : Tensor
        Samples of every class, int64 of shape ``[K]``.

    Raises
    ------
    ValueError
        If a label is neither `ignore_index` nor in ``[0, num_classes)``. On
        CUDA, where looking would mean waiting, the means are NaN instead.

    Examples
    --------
    >>> x = torch.tensor([[1.0], [3.0], [8.0]])
    >>> means, counts = class_means(x, torch.tensor([0, 0, 2]), 3)
    >>> means.squeeze(1), counts
    (tensor([2., 0., 8.]), tensor([2, 0, 1]))
    """
    m = spatial_mean(x, unit_dim=unit_dim)
    labels = labels.long()
    rows = _class_rows(labels, num_classes, ignore_index)
    ones = torch.ones_like(rows)
    counts = ones.new_zeros(num_classes + 1).index_add(0, rows, ones)[:num_classes]
    # An expanded zero saves a pass over memory, but inductor cannot add into it. Out of place,
    # because vmap may batch the labels alone.
    shape = (num_classes + 1, m.shape[1])
    zero = m.new_zeros(shape) if torch.compiler.is_compiling() else m.new_zeros(()).expand(shape)
    sums = zero.index_add(0, rows, m)[:num_classes]
    means = sums / counts.clamp(min=1).to(sums.dtype).unsqueeze(1)
    if labels.is_cuda:
        means = torch.where(_invalid(labels, num_classes, ignore_index).any(), torch.nan, means)
    return means, counts


def selectivity_index(
    x: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    unit_dim: int = 1,
    eps: float = 1e-6,
    ignore_index: int = -100,
) -> Tensor:
    r"""Class selectivity index of every unit.

    .. math::

        \mathrm{SI} = \frac{\mu_\mathrm{max} - \mu_\mathrm{rest}}
                           {\mu_\mathrm{max} + \mu_\mathrm{rest} + \epsilon},
        \qquad \mu_\mathrm{max} = \max_{k \in P} \mu_k,
        \qquad \mu_\mathrm{rest} =
            \frac{\sum_{k \in P} \mu_k - \mu_\mathrm{max}}{|P| - 1}

    where :math:`\mu_k` are the unit's class means and :math:`P` the classes
    present in the batch.

    Parameters
    ----------
    x : Tensor
        Activations, samples first, with two to five dimensions.
    labels : Tensor
        Class of every sample, int32 or int64 of shape ``[N]``.
    num_classes : int
        Number of classes.
    unit_dim : int, default 1
        Axis of the units.
    eps : float, default 1e-6
        Added to the denominator.
    ignore_index : int, default -100
        Samples with this label take no part.

    Returns
    -------
    Tensor
        Index of every unit, of shape ``[C]``.

    Examples
    --------
    >>> x = torch.tensor([[3.0, 1.0], [1.0, 1.0]])
    >>> selectivity_index(x, torch.tensor([0, 1]), 2, eps=0.0)
    tensor([0.5000, 0.0000])
    """
    means, counts = class_means(
        x, labels, num_classes, unit_dim=unit_dim, ignore_index=ignore_index
    )
    return selectivity_index_from_means(means, counts, eps=eps)


def selectivity_index_from_means(
    means: Tensor, counts: Tensor | None = None, *, eps: float = 1e-6
) -> Tensor:
    r"""Class selectivity index of every unit, from its class means.

    .. math::

        \mathrm{SI} = \frac{\mu_\mathrm{max} - \mu_\mathrm{rest}}
                           {\mu_\mathrm{max} + \mu_\mathrm{rest} + \epsilon}

    A unit whose class means are all zero has index 0 and gradient 0, and so
    has every unit where fewer than two classes are present. The lowest of
    several classes with the same largest mean takes the gradient.

    Parameters
    ----------
    means : Tensor
        Class means of shape ``[K, C]``.
    counts : Tensor, optional
        Samples of every class, of shape ``[K]``. Classes with a count of zero
        are left out; without counts every class is present.
    eps : float, default 1e-6
        Added to the denominator.

    Returns
    -------
    Tensor
        Index of every unit, of shape ``[C]``: float64 for float64 means, else
        float32.

    Examples
    --------
    >>> means = torch.tensor([[3.0, 0.0], [1.0, 0.0]])
    >>> selectivity_index_from_means(means, eps=0.0)
    tensor([0.5000, 0.0000])
    """
    means = means.to(result_dtype(means.dtype))
    if counts is None:
        return _selectivity_index(means, None, eps)
    present = counts > 0
    means = means.masked_fill(~present.unsqueeze(1), 0.0)
    return _selectivity_index(means, present, eps)


def mean_selectivity(
    activations: Tensor | Sequence[Tensor] | Mapping[str, Tensor],
    labels: Tensor,
    num_classes: int,
    *,
    unit_dim: int | Sequence[int] | Mapping[str, int] = 1,
    eps: float = 1e-6,
    ignore_index: int = -100,
) -> Tensor:
    r"""Class selectivity index averaged over units, then over layers.

    .. math::

        \frac{1}{|\mathcal{L}|} \sum_{l \in \mathcal{L}}
            \frac{1}{C_l} \sum_{u=1}^{C_l} \mathrm{SI}_{lu}

    Parameters
    ----------
    activations : Tensor, sequence of Tensor or mapping of Tensor
        Activations of every layer, samples first. A layer of shape ``[N, C]``
        counts as already averaged over positions.
    labels : Tensor
        Class of every sample, int32 or int64 of shape ``[N]``.
    num_classes : int
        Number of classes.
    unit_dim : int, or one int per layer, default 1
        Axis of the units.
    eps : float, default 1e-6
        Added to the denominator.
    ignore_index : int, default -100
        Samples with this label take no part.

    Returns
    -------
    Tensor
        Mean index, a scalar.

    Examples
    --------
    >>> x = torch.tensor([[3.0, 1.0], [1.0, 1.0]])
    >>> mean_selectivity([x, x[:, :1]], torch.tensor([0, 1]), 2, eps=0.0)
    tensor(0.3750)
    """
    return mean_selectivity_of_layers(
        activations, labels, num_classes, unit_dim=unit_dim, eps=eps, ignore_index=ignore_index
    )[0]


def mean_selectivity_of_layers(
    activations: Tensor | Sequence[Tensor] | Mapping[str, Tensor],
    labels: Tensor,
    num_classes: int,
    *,
    unit_dim: int | Sequence[int] | Mapping[str, int] = 1,
    eps: float = 1e-6,
    ignore_index: int = -100,
) -> tuple[Tensor, Tensor]:
    """Return :func:`mean_selectivity` and its terms, the mean over the units of each layer."""
    layers = [
        spatial_mean(x, unit_dim=axis) for x, axis in _layers_with_axes(activations, unit_dim)
    ]
    # Class sums of all layers at once save calls, as long as they fit the cache.
    units = sum(layer.shape[1] for layer in layers)
    together = num_classes * units <= 2**20
    groups = [layers] if together else [[layer] for layer in layers]
    parts: list[Tensor] = []
    for group in groups:
        means, counts = class_means(
            torch.cat(group, 1), labels, num_classes, ignore_index=ignore_index
        )
        index = _selectivity_index(means, counts > 0, eps)
        widths = [layer.shape[1] for layer in group]
        parts += [part.mean() for part in torch.split(index, widths)]
    layer_index = torch.stack(parts)
    return layer_index.mean(), layer_index


def _layers_with_axes(
    activations: Tensor | Sequence[Tensor] | Mapping[str, Tensor],
    unit_dim: int | Sequence[int] | Mapping[str, int],
) -> list[tuple[Tensor, int]]:
    """Pair every layer with its unit axis."""
    if isinstance(activations, Mapping):
        if isinstance(unit_dim, Mapping):
            unit_dim = [unit_dim[name] for name in activations]
        activations = list(activations.values())
    layers = [activations] if isinstance(activations, Tensor) else list(activations)
    if isinstance(unit_dim, Mapping):
        raise TypeError("unit_dim must be an int or a sequence, got a mapping")
    axes = [unit_dim] * len(layers) if isinstance(unit_dim, int) else unit_dim
    return list(zip(layers, axes, strict=True))


def _invalid(labels: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    outside = (labels < 0) | (labels >= num_classes)
    return outside & (labels != ignore_index)


# As an operator of its own the check also raises under vmap and torch.compile.
@torch.library.custom_op("selkern_reference::class_rows", mutates_args=())
def _class_rows(labels: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Row of the class sums for every sample; row K collects those left out."""
    invalid = _invalid(labels, num_classes, ignore_index)
    if (not labels.is_cuda or os.environ.get("SELKERN_CHECK") == "1") and bool(invalid.any()):
        *batch, row = invalid.nonzero()[0].tolist()
        raise ValueError(
            f"labels must be in [0, {num_classes}) or equal to ignore_index "
            f"({ignore_index}), got {int(labels[(*batch, row)])} at row {row}"
        )
    left_out = invalid | (labels == ignore_index)
    return torch.where(left_out, num_classes, labels)


@_class_rows.register_fake
def _(labels: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    return torch.empty_like(labels)


@_class_rows.register_vmap
def _(
    info: object,
    in_dims: tuple[int | None, ...],
    labels: Tensor,
    num_classes: int,
    ignore_index: int,
) -> tuple[Tensor, int]:
    labels = labels.movedim(in_dims[0] or 0, 0)
    return _class_rows(labels, num_classes, ignore_index), 0


def _selectivity_index(means: Tensor, present: Tensor | None, eps: float) -> Tensor:
    """Index of every unit; the rows of absent classes must be zero."""
    means = means.to(result_dtype(means.dtype))
    candidates = means
    classes = means.new_full((), means.shape[0])
    if present is not None:
        candidates = means.masked_fill(~present.unsqueeze(1), -torch.inf)
        classes = present.sum().to(means.dtype)
    # torch.max is documented to return the first of several equal maxima.
    winner = candidates.detach().max(0, keepdim=True).indices
    largest = means.gather(0, winner).squeeze(0)
    rest = means.scatter(0, winner, 0.0).sum(0) / (classes - 1).clamp(min=1)
    total = largest + rest
    dead = (largest == 0) & (rest == 0)
    single = classes < 2
    # The inner where keeps every derivative of the branch not taken finite.
    ratio = (largest - rest) / torch.where(dead | single, 1.0, total + eps)
    zero = torch.zeros_like(total).masked_fill(~total.isfinite(), torch.nan)
    return torch.where(single, zero, torch.where(dead, 0.0, ratio))
