"""Class means and the class selectivity index of Leavitt & Morcos (2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from selkern import _checks, _library, reference
from selkern._checks import Activations
from selkern._layout import Map, result_dtype, units_second
from selkern.pooling import spatial_mean

_ops = torch.ops.selkern


def _classes_and_weights(
    labels: Tensor, counts: Tensor, ignore_index: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return a valid class for each sample, and its weight in that class's mean."""
    kept = labels != ignore_index
    classes = torch.where(kept, labels, 0).long()
    return classes, kept.to(dtype) / counts[classes].clamp(min=1)


def _weighted(rows: Tensor, weights: Tensor) -> Tensor:
    """Return ``rows`` times ``weights``, and 0 for weight 0 even where a row is not finite."""
    weights = weights.unsqueeze(1)
    return torch.where(weights > 0, rows * weights, 0.0)


class _ClassMeans(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, labels: Tensor, num_classes: int, ignore_index: int
    ) -> tuple[Tensor, Tensor]:
        return _ops.class_means(x, labels, num_classes, ignore_index)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        x, labels, _, ctx.ignore_index = inputs
        ctx.dtype = x.dtype
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(labels, output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return None, None, None, None
        labels, counts = ctx.saved_tensors
        if torch.is_grad_enabled():
            classes, weights = _classes_and_weights(labels, counts, ctx.ignore_index, grad.dtype)
            grad_x = _weighted(grad[classes], weights).to(ctx.dtype)
        else:
            grad_x = _ops.class_means_backward(grad, labels, counts, ctx.ignore_index, ctx.dtype)
        return grad_x, None, None, None


class _Selectivity(torch.autograd.Function):
    """Selectivity of all layers at once.

    The largest class mean and the mean of the others are outputs too, although no caller sees
    them: the backward reads them, and a second derivative finds its way back through them. So
    nothing as large as an activation is saved.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        labels: Tensor,
        num_classes: int,
        eps: float,
        ignore_index: int,
        is_leaf: tuple[bool, ...],
        *activations: Tensor,
    ) -> tuple[Tensor, ...]:
        return _ops.selectivity(activations, labels, num_classes, eps, ignore_index)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        labels, _, ctx.eps, ctx.ignore_index, is_leaf, *activations = inputs
        _, layers, _, maximum, rest, winner, counts = output
        ctx.maps = [Map.of(x, leaf) for x, leaf in zip(activations, is_leaf)]
        ctx.mark_non_differentiable(layers, winner, counts)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(labels, maximum, rest, winner, counts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        grad_loss, _, grad_index, grad_maximum, grad_rest, _, _ = grads
        incoming = (grad_loss, grad_index, grad_maximum, grad_rest)
        maps: Sequence[Map] = ctx.maps
        if all(grad is None for grad in incoming):
            return (None,) * (5 + len(maps))
        units = [a.shape[1] for a in maps]
        if torch.is_grad_enabled():
            packed = _gradient_of_means(incoming, ctx.saved_tensors, units, ctx)
            of_layers = [g / a.positions for g, a in zip(packed.split(units, 1), maps)]
        else:
            packed = _raw_gradient_of_sums(incoming, ctx.saved_tensors, units, ctx)
            of_layers = list(packed.split(units, 1))
        return (None,) * 5 + tuple(a.filled(g) for g, a in zip(of_layers, maps))


def _raw_gradient_of_sums(
    incoming: tuple[Tensor | None, ...], saved: tuple[Tensor, ...], units: list[int], ctx: Any
) -> Tensor:
    labels, maximum, rest, winner, counts = saved
    dtypes = {a.dtype for a in ctx.maps}
    return _ops.selectivity_backward(
        *incoming,
        maximum,
        rest,
        winner,
        counts,
        labels,
        units,
        [a.positions for a in ctx.maps],
        ctx.eps,
        ctx.ignore_index,
        dtypes.pop() if len(dtypes) == 1 else result_dtype(*dtypes),
    )


def _gradient_of_means(
    incoming: tuple[Tensor | None, ...], saved: tuple[Tensor, ...], units: list[int], ctx: Any
) -> Tensor:
    """Compute the gradient by operations that can be differentiated again."""
    grad_loss, grad_index, grad_maximum, grad_rest = incoming
    labels, maximum, rest, winner, counts = saved
    grad: Tensor | float = 0.0 if grad_index is None else grad_index
    if grad_loss is not None:
        share = [grad_loss.expand(width) / (len(units) * width) for width in units]
        grad = torch.cat(share) + grad

    present = (counts > 0).sum()
    is_constant = (present < 2) | ((maximum == 0) & (rest == 0))
    total = torch.where(is_constant, 1.0, maximum + rest + ctx.eps)
    of_maximum = torch.where(is_constant, 0.0, grad * (2 * rest + ctx.eps) / total / total)
    of_rest = torch.where(is_constant, 0.0, -grad * (2 * maximum + ctx.eps) / total / total)
    if grad_maximum is not None:
        of_maximum = of_maximum + grad_maximum
    if grad_rest is not None:
        of_rest = of_rest + grad_rest
    of_rest = of_rest / (present - 1).clamp(min=1)

    classes, weights = _classes_and_weights(labels, counts, ctx.ignore_index, maximum.dtype)
    is_winner = classes.unsqueeze(1) == winner
    return _weighted(torch.where(is_winner, of_maximum, of_rest), weights)


@torch.compiler.allow_in_graph
def _class_means(
    x: Tensor, labels: Tensor, num_classes: int, ignore_index: int
) -> tuple[Tensor, Tensor]:
    return _ClassMeans.apply(x, labels, num_classes, ignore_index)


@torch.compiler.allow_in_graph
def _selectivity(
    activations: list[Tensor],
    unit_dims: list[int],
    labels: Tensor,
    num_classes: int,
    eps: float,
    ignore_index: int,
) -> tuple[Tensor, Tensor, Tensor]:
    is_leaf = tuple(x.is_leaf for x in activations)
    maps = [units_second(x, axis) for x, axis in zip(activations, unit_dims)]
    loss, layers, index, *_ = _Selectivity.apply(
        labels, num_classes, eps, ignore_index, is_leaf, *maps
    )
    return loss, layers, index


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
        first such label and its row.

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
    ignore_index = _checks.integer("ignore_index", ignore_index)
    if not _library.COMPILED:
        return reference.class_means(
            x, labels, num_classes, unit_dim=axis, ignore_index=ignore_index
        )
    means = x if x.dim() == 2 else spatial_mean(x, unit_dim=axis)
    return _class_means(means, labels, num_classes, ignore_index)


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
    ignore_index = _checks.integer("ignore_index", ignore_index)
    if not _library.COMPILED:
        return reference.selectivity_index(
            x, labels, num_classes, unit_dim=axis, eps=eps, ignore_index=ignore_index
        )
    return _selectivity([x], [axis], labels, num_classes, eps, ignore_index)[2]


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
    return _selectivity([means], [1], classes, max(1, means.shape[0]), eps, absent)[2]


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


def selectivity_of_layers(
    activations: Activations,
    labels: Tensor,
    num_classes: int,
    *,
    unit_dim: int | Sequence[int] | Mapping[str, int],
    eps: float,
    ignore_index: int,
) -> tuple[Tensor, Tensor]:
    """Return :func:`mean_selectivity` and its terms, the detached mean of each layer."""
    tensors, axes = _checks.layers(activations, unit_dim)
    _checks.labels(labels, tensors[0].shape[0], tensors[0].device)
    num_classes = _checks.num_classes(num_classes)
    eps = _checks.epsilon(eps)
    ignore_index = _checks.integer("ignore_index", ignore_index)
    if not _library.COMPILED:
        loss, layers = reference.mean_selectivity_of_layers(
            tensors, labels, num_classes, unit_dim=axes, eps=eps, ignore_index=ignore_index
        )
        return loss, layers.detach()
    loss, layers, _ = _selectivity(tensors, axes, labels, num_classes, eps, ignore_index)
    return loss, layers
