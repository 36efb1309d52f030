"""Fake kernels and vmap rules of the raw operators ``torch.ops.selkern``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.library import register_fake, register_vmap

from selkern._layout import is_channels_last, result_dtype

_ops = torch.ops.selkern


def _empty_maps(x: Tensor) -> Tensor:
    """Return an empty output shaped like ``x``, strided by the rule of ``csrc/tensors.h``."""
    if x.is_contiguous() or is_channels_last(x):
        return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device)
    if not _is_strided_channels_last(x):
        return x.new_empty(x.shape)
    return x.new_empty(x.movedim(1, -1).shape).movedim(-1, 1)


def _is_strided_channels_last(x: Tensor) -> bool:
    """Tell whether units are adjacent and the positions fold into one axis that is not."""
    position_stride, positions = 1, 1
    for axis in range(x.dim() - 1, 1, -1):
        if x.shape[axis] == 1:
            continue
        if positions == 1:
            position_stride = x.stride(axis)
        elif x.stride(axis) != positions * position_stride:
            return False
        positions *= x.shape[axis]
    adjacent_units = x.stride(1) == 1 or x.shape[1] == 1
    return adjacent_units and (positions == 1 or position_stride != 1)


def _empty_mean(x: Tensor) -> Tensor:
    return x.new_empty(x.shape[:2], dtype=result_dtype(x.dtype))


@register_fake("selkern::spatial_mean")
def _(x: Tensor) -> Tensor:
    return _empty_mean(x)


@register_fake("selkern::relu_with_mean")
def _(x: Tensor) -> tuple[Tensor, Tensor]:
    return _empty_maps(x), _empty_mean(x)


@register_fake("selkern::relu_with_mean_")
def _(x: Tensor) -> Tensor:
    return _empty_mean(x)


@register_fake("selkern::relu_with_mean_backward")
def _(grad_y: Tensor | None, grad_mean: Tensor | None, y: Tensor) -> Tensor:
    return _empty_maps(y)


@register_fake("selkern::class_means")
def _(x: Tensor, labels: Tensor, num_classes: int, ignore_index: int) -> tuple[Tensor, Tensor]:
    means = x.new_empty((num_classes, x.shape[1]), dtype=result_dtype(x.dtype))
    return means, x.new_empty((num_classes,), dtype=torch.int64)


@register_fake("selkern::class_means_backward")
def _(
    grad: Tensor, labels: Tensor, counts: Tensor, ignore_index: int, dtype: torch.dtype
) -> Tensor:
    return grad.new_empty((labels.shape[0], grad.shape[1]), dtype=dtype)


@register_fake("selkern::selectivity")
def _(
    activations: Sequence[Tensor], labels: Tensor, num_classes: int, eps: float, ignore_index: int
) -> tuple[Tensor, ...]:
    units = sum(x.shape[1] for x in activations)
    result = activations[0].new_empty((), dtype=result_dtype(*(x.dtype for x in activations)))
    return (
        result,
        result.new_empty((len(activations),)),
        result.new_empty((units,)),
        result.new_empty((units,)),
        result.new_empty((units,)),
        result.new_empty((units,), dtype=torch.int64),
        result.new_empty((num_classes,), dtype=torch.int64),
    )


@register_fake("selkern::selectivity_backward")
def _(
    grad_loss: Tensor | None,
    grad_index: Tensor | None,
    grad_maximum: Tensor | None,
    grad_rest: Tensor | None,
    maximum: Tensor,
    rest: Tensor,
    winner: Tensor,
    counts: Tensor,
    labels: Tensor,
    units: Sequence[int],
    positions: Sequence[int],
    eps: float,
    ignore_index: int,
    dtype: torch.dtype,
) -> Tensor:
    return maximum.new_empty((labels.shape[0], maximum.shape[0]), dtype=dtype)


@register_fake("selkern::eigvalsh")
def _(a: Tensor) -> Tensor:
    return a.new_empty(a.shape[:2])


@register_fake("selkern::eigh")
def _(a: Tensor) -> tuple[Tensor, Tensor]:
    return a.new_empty(a.shape[:2]), a.new_empty(a.shape)


@register_fake("selkern::rayleigh_quotients")
def _(a: Tensor, vectors: Tensor) -> Tensor:
    return a.new_empty(a.shape[:2])


@register_fake("selkern::center")
def _(x: Tensor, scale: float) -> Tensor:
    return x.new_empty(x.shape, dtype=result_dtype(x.dtype))


@register_fake("selkern::centered_product")
def _(x: Tensor, scale: float, gram: bool) -> Tensor:
    size = x.shape[1] if gram else x.shape[2]
    return x.new_empty((x.shape[0], size, size), dtype=result_dtype(x.dtype))


@register_fake("selkern::centered_matmul")
def _(x: Tensor, weights: Tensor, scale: float, gram: bool) -> Tensor:
    return x.new_empty(x.shape)


@register_fake("selkern::covariance_spectrum")
def _(eigenvalues: Tensor, samples: int, correction: int, scale: float) -> Tensor:
    return eigenvalues.new_empty(eigenvalues.shape)


@register_fake("selkern::covariance_spectrum_backward")
def _(grad: Tensor, spectrum: Tensor, samples: int, correction: int, scale: float) -> Tensor:
    return spectrum.new_empty(spectrum.shape)


@register_fake("selkern::power_law_penalty")
def _(
    spectrum: Tensor, kappa: Tensor | None, exponent: float, anchor: int, width: int
) -> tuple[Tensor, Tensor]:
    return spectrum.new_empty(spectrum.shape[:1]), spectrum.new_empty(spectrum.shape)


@register_fake("selkern::basis_spectrum")
def _(projected: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    spectrum = projected.new_empty((projected.shape[0], projected.shape[2]))
    return spectrum, torch.empty_like(spectrum, dtype=torch.int64)


@register_fake("selkern::basis_penalty")
def _(
    projected: Tensor,
    kappa: Tensor | None,
    scale: float,
    exponent: float,
    anchor: int,
    width: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    spectrum = projected.new_empty((projected.shape[0], projected.shape[2]))
    order = torch.empty_like(spectrum, dtype=torch.int64)
    return projected.new_empty(projected.shape[:1]), spectrum, order, torch.empty_like(spectrum)


@register_fake("selkern::pgd_step")
def _(
    adv: Tensor,
    grad: Tensor,
    images: Tensor,
    norm: int,
    eps: float,
    alpha: float,
    low: float,
    high: float,
) -> Tensor:
    return _empty_maps(adv)


@register_fake("selkern::pgd_step_out")
def _(
    out: Tensor,
    adv: Tensor,
    grad: Tensor,
    images: Tensor,
    norm: int,
    eps: float,
    alpha: float,
    low: float,
    high: float,
) -> None:
    return None


def _fold(x: Tensor, batch_dim: int | None, batch_size: int) -> Tensor:
    """Merge the batch axis into the samples, which spatial operators treat one by one."""
    batched = x.expand(batch_size, *x.shape) if batch_dim is None else x.movedim(batch_dim, 0)
    return batched.flatten(0, 1)


def _unfold(x: Tensor, batch_size: int, samples: int) -> Tensor:
    return x.reshape(batch_size, samples, *x.shape[1:])


def _samples(x: Tensor, batch_dim: int | None) -> int:
    """Return the size of the first axis that is not the batch."""
    return x.shape[1] if batch_dim == 0 else x.shape[0]


@register_vmap("selkern::spatial_mean")
def _(info: Any, in_dims: tuple[int], x: Tensor) -> tuple[Tensor, int]:
    mean = _ops.spatial_mean(_fold(x, in_dims[0], info.batch_size))
    return _unfold(mean, info.batch_size, _samples(x, in_dims[0])), 0


@register_vmap("selkern::relu_with_mean")
def _(info: Any, in_dims: tuple[int], x: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    y, mean = _ops.relu_with_mean(_fold(x, in_dims[0], info.batch_size))
    samples = _samples(x, in_dims[0])
    y, mean = (_unfold(out, info.batch_size, samples) for out in (y, mean))
    return (y, mean), (0, 0)


@register_vmap("selkern::relu_with_mean_backward")
def _(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensor, int]:
    folded = [
        None if x is None else _fold(x, dim, info.batch_size) for x, dim in zip(args, in_dims)
    ]
    grad_x = _ops.relu_with_mean_backward(*folded)
    return _unfold(grad_x, info.batch_size, _samples(args[2], in_dims[2])), 0


def _folding(op: Callable[..., Any]) -> Callable[..., Any]:
    """Merge the batch axis into the first one, which every argument and every result has."""

    def rule(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        folded = [
            _fold(value, dim, info.batch_size) if isinstance(value, Tensor) else value
            for value, dim in zip(args, in_dims)
        ]
        samples = _samples(args[0], in_dims[0])
        results = op(*folded)
        if isinstance(results, Tensor):
            return _unfold(results, info.batch_size, samples), 0
        unfolded = tuple(_unfold(result, info.batch_size, samples) for result in results)
        return unfolded, (0,) * len(unfolded)

    return rule


for _name in (
    "eigvalsh",
    "eigh",
    "rayleigh_quotients",
    "center",
    "centered_product",
    "centered_matmul",
    "covariance_spectrum",
    "covariance_spectrum_backward",
    "power_law_penalty",
    "basis_spectrum",
    "basis_penalty",
    "pgd_step",
):
    register_vmap(f"selkern::{_name}", _folding(getattr(_ops, _name)))


def _select(value: Any, batch_dim: Any, index: int) -> Any:
    if batch_dim is None:
        return value
    if isinstance(value, Tensor):
        if value.shape[batch_dim] == 0:
            return value.new_zeros(value.movedim(batch_dim, 0).shape[1:])
        return value.select(batch_dim, index)
    return [_select(item, dim, index) for item, dim in zip(value, batch_dim)]


def _one_by_one(op: Callable[..., Any]) -> Callable[..., Any]:
    """Run ``op`` on each element of the batch: labels may differ between them."""

    def rule(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        # An empty batch needs one element too, whose results say what shape nothing has.
        results = [
            op(*(_select(value, dim, index) for value, dim in zip(args, in_dims)))
            for index in range(max(1, info.batch_size))
        ]
        if isinstance(results[0], Tensor):
            return torch.stack(results)[: info.batch_size], 0
        stacked = tuple(torch.stack(outputs)[: info.batch_size] for outputs in zip(*results))
        return stacked, (0,) * len(stacked)

    return rule


for _name in ("class_means", "class_means_backward", "selectivity", "selectivity_backward"):
    register_vmap(f"selkern::{_name}", _one_by_one(getattr(_ops, _name)))
