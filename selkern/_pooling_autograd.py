"""Spatial means as autograd functions, alone and fused into the ReLU before them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from selkern._layout import Map, units_back, units_second
from selkern._numerics import quick_to_apply

_ops = torch.ops.selkern


@quick_to_apply
class _SpatialMean(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, is_leaf: bool) -> Tensor:
        return _ops.spatial_mean(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, bool], output: Tensor) -> None:
        ctx.map = Map.of(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.map.filled(grad / ctx.map.positions), None


@quick_to_apply
class _ReluWithMean(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        return _ops.relu_with_mean(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(output[0])

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor | None, grad_mean: Tensor | None) -> Tensor | None:
        (y,) = ctx.saved_tensors
        return _relu_with_mean_backward(grad_y, grad_mean, y)


@quick_to_apply
class _ReluWithMeanInPlace(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        return x, _ops.relu_with_mean_(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.set_materialize_grads(False)
        ctx.mark_dirty(inputs[0])
        ctx.save_for_backward(output[0])

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor | None, grad_mean: Tensor | None) -> Tensor | None:
        (y,) = ctx.saved_tensors
        return _relu_with_mean_backward(grad_y, grad_mean, y)


def _relu_with_mean_backward(
    grad_y: Tensor | None, grad_mean: Tensor | None, y: Tensor
) -> Tensor | None:
    if grad_y is None and grad_mean is None:
        return None
    if not torch.is_grad_enabled():
        return _ops.relu_with_mean_backward(grad_y, grad_mean, y)
    grad: Tensor | float = 0.0 if grad_y is None else grad_y
    if grad_mean is not None:
        maps = Map(y.shape, grad_mean.dtype, is_leaf=False, channels_last=False)
        grad = maps.filled(grad_mean / maps.positions) + grad
    return torch.where(y <= 0, 0.0, grad).to(y.dtype)


@torch.compiler.allow_in_graph
def spatial_mean(x: Tensor, unit_dim: int) -> Tensor:
    return _SpatialMean.apply(units_second(x, unit_dim), x.is_leaf)


@torch.compiler.allow_in_graph
def relu_with_mean(x: Tensor, unit_dim: int) -> tuple[Tensor, Tensor]:
    y, mean = _ReluWithMean.apply(units_second(x, unit_dim))
    return units_back(y, unit_dim), mean


def relu_with_mean_(x: Tensor) -> Tensor:
    _, mean = _ReluWithMeanInPlace.apply(x)
    return mean
