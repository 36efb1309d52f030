"""Class means and selectivity as autograd functions, differentiable to any order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from selkern._layout import Map, result_dtype, units_second
from selkern._numerics import quick_to_apply

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


@quick_to_apply
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


@quick_to_apply
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
def class_means_of_rows(
    x: Tensor, labels: Tensor, num_classes: int, ignore_index: int
) -> tuple[Tensor, Tensor]:
    """Return class means and counts of ``x`` ``[N, C]``."""
    return _ClassMeans.apply(x, labels, num_classes, ignore_index)


@torch.compiler.allow_in_graph
def selectivity_of_maps(
    activations: list[Tensor],
    unit_dims: list[int],
    labels: Tensor,
    num_classes: int,
    eps: float,
    ignore_index: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean over the layers, the detached mean of each, and the index of each unit."""
    is_leaf = tuple(x.is_leaf for x in activations)
    maps = [units_second(x, axis) for x, axis in zip(activations, unit_dims)]
    loss, layers, index, *_ = _Selectivity.apply(
        labels, num_classes, eps, ignore_index, is_leaf, *maps
    )
    return loss, layers, index
