"""What autograd functions have in common: their speed, their precision, when they are needed."""

from __future__ import annotations

import inspect
import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

Function = TypeVar("Function", bound=type[torch.autograd.Function])


class _Arguments(NamedTuple):
    """What ``inspect.Signature.bind`` returns, as far as ``apply`` looks at it."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def apply_defaults(self) -> None:
        """There are none."""


class _WithoutDefaults(inspect.Signature):
    """A signature that takes arguments as they come."""

    def bind(self, *args: Any, **kwargs: Any) -> Any:
        return _Arguments(args, kwargs)


def quick_to_apply(function: Function) -> Function:
    """Spare ``apply`` a look for defaults at every call, which ``forward`` must not have.

    Where a function has ``setup_context``, ``torch.autograd.Function.apply`` binds its arguments by
    ``inspect.signature(forward)`` each time, which takes longer than a small kernel. A signature
    that is set on ``forward`` is taken as it is, and binds nothing.
    """
    forward: Any = function.forward
    parameters = inspect.signature(forward).parameters.values()
    forward.__signature__ = _WithoutDefaults(list(parameters))
    return function


def rounding_tolerance(dtype: torch.dtype) -> float:
    """Return the share of the largest eigenvalue up to which others are rounding."""
    return 1e-12 if dtype == torch.float64 else 2e-6


def needs_gradient(x: Tensor) -> bool:
    """Tell whether a gradient of ``x`` may be asked for.

    Under torch.func there is no knowing; forward mode has to meet the function that refuses it.
    """
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return True
    return torch.is_grad_enabled() and x.requires_grad


def full_precision(x: Tensor) -> AbstractContextManager[Any]:
    """Keep autocast from lowering the matrix products of ``x``."""
    if not torch.is_autocast_enabled(x.device.type):
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)


def as_rows(x: Tensor) -> Tensor:
    """Fold all axes but the last one into one."""
    if x.dim() == 2:
        return x
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def as_batch(x: Tensor) -> Tensor:
    """Fold all axes but the last two into one."""
    if x.dim() == 3:
        return x
    return x.reshape(math.prod(x.shape[:-2]), *x.shape[-2:])


@quick_to_apply
class _Matmul(torch.autograd.Function):
    """The product of two matrices, whose derivatives autocast does not lower either."""

    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor, b: Tensor) -> Tensor:
        with full_precision(a):
            return a @ b

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = ctx.saved_tensors
        needs_a, needs_b = ctx.needs_input_grad
        return (
            _Matmul.apply(grad, b.mT) if needs_a else None,
            _Matmul.apply(a.mT, grad) if needs_b else None,
        )


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a @ b``, never lowered by autocast; only a constant ``b`` may have fewer axes."""
    return _Matmul.apply(a, b) if torch.is_grad_enabled() else _Matmul.forward(a, b)
