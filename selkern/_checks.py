"""Argument checks shared by the public functions."""

from __future__ import annotations

import math
import numbers
import operator
import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

Activations: TypeAlias = "Tensor | Sequence[Tensor] | Mapping[str, Tensor]"

_FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_LABELS = (torch.int64, torch.int32)


def floating(name: str, x: Any) -> None:
    """Refuse anything but a dense floating tensor."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(x).__name__}")
    if x.dtype not in _FLOATING:
        raise TypeError(
            f"{name} must be float16, bfloat16, float32 or float64, got {short(x.dtype)}"
        )
    if x.layout != torch.strided:
        raise TypeError(f"{name} must be a dense (strided) tensor, got layout {x.layout}")


def activation(name: str, x: Any) -> None:
    """Refuse anything but a dense floating tensor ``[N, C]`` to ``[N, C, D, H, W]``."""
    floating(name, x)
    if not 2 <= x.dim() <= 5:
        raise ValueError(f"{name} must have 2 to 5 axes, [N, C, ...], got shape {tuple(x.shape)}")


def unit_axis(name: str, unit_dim: Any, x: Tensor) -> int:
    """Return ``unit_dim`` as a non-negative axis of ``x`` that is not the sample axis."""
    axis = integer(name, unit_dim)
    if not -x.dim() <= axis < x.dim():
        raise ValueError(f"{name} must be an axis of a tensor with {x.dim()} axes, got {axis}")
    axis %= x.dim()
    if axis == 0:
        raise ValueError(f"{name} must not be 0, the axis of the samples, got {unit_dim}")
    return axis


def integer(name: str, value: Any) -> int:
    """Return ``value`` as an int; bool and everything without ``__index__`` is refused."""
    if isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got bool")
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}") from None


def real(name: str, value: Any) -> float:
    """Return ``value`` as a float, infinity where none holds it; bool is refused."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a real number, got {type(value).__name__}")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def generator(value: Any) -> torch.Generator | None:
    """Return ``value``, a generator or None."""
    if value is not None and not isinstance(value, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator or None, got {type(value).__name__}")
    return value


def module(name: str, value: Any) -> None:
    """Refuse anything but a module."""
    if not isinstance(value, nn.Module):
        raise TypeError(f"{name} must be a torch.nn.Module, got {type(value).__name__}")


def may_look_at(x: Tensor) -> bool:
    """Tell whether values may be looked at: on CUDA only if waiting is asked for."""
    if not x.is_cuda:
        return True
    return os.environ.get("SELKERN_CHECK") == "1" and not torch.cuda.is_current_stream_capturing()


def one_of(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    """Return ``value``, one of the names in ``allowed``."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {allowed}, got {value!r}")
    return value


def ignore_index(value: Any) -> int:
    """Return an ``ignore_index`` that an int64 label can equal."""
    label = integer("ignore_index", value)
    if not -(2**63) <= label < 2**63:
        raise ValueError(f"ignore_index must fit 64 bits, got {label}")
    return label


def num_classes(value: Any) -> int:
    """Return a number of classes of at least one."""
    count = integer("num_classes", value)
    if not 1 <= count < 2**63:
        raise ValueError(f"num_classes must be at least 1 and fit 64 bits, got {count}")
    return count


def epsilon(value: Any) -> float:
    """Return a finite ``eps`` of at least zero."""
    number = real("eps", value)
    if not 0 <= number < math.inf:
        raise ValueError(f"eps must be finite and at least 0, got {value}")
    return number


def labels(value: Any, samples: int, device: torch.device, others: str = "the activations") -> None:
    """Refuse anything but an integer tensor ``[samples]`` on ``device``."""
    if not isinstance(value, Tensor):
        raise TypeError(f"labels must be a torch.Tensor, got {type(value).__name__}")
    if value.dtype not in _LABELS:
        raise TypeError(f"labels must be int64 or int32, got {short(value.dtype)}")
    if value.dim() != 1 or value.shape[0] != samples:
        raise ValueError(f"labels must have shape [{samples}], got {list(value.shape)}")
    same_device("labels", value, device, others)


def counts(value: Any, means: Tensor) -> None:
    """Refuse anything but an integer tensor with one entry per row of ``means``."""
    if not isinstance(value, Tensor):
        raise TypeError(f"counts must be a torch.Tensor or None, got {type(value).__name__}")
    if value.dtype not in _LABELS:
        raise TypeError(f"counts must be int64 or int32, got {short(value.dtype)}")
    if value.dim() != 1 or value.shape[0] != means.shape[0]:
        raise ValueError(f"counts must have shape [{means.shape[0]}], got {list(value.shape)}")
    same_device("counts", value, means.device)


def same_device(
    name: str, x: Tensor, device: torch.device, others: str = "the activations"
) -> None:
    """Refuse a tensor that lies on another device than the rest of the call."""
    if x.device != device:
        raise ValueError(f"{name} must be on {device} like {others}, got {x.device}")


def layers(activations: Any, unit_dim: Any) -> tuple[list[Tensor], list[int]]:
    """Return the layers of ``activations`` and the unit axis of each, all checked."""
    names, tensors = named_layers(activations)
    for name, x in zip(names, tensors):
        activation(name, x)
        if x.shape[0] != tensors[0].shape[0]:
            raise ValueError(
                f"{name} must have {tensors[0].shape[0]} samples like {names[0]}, got {x.shape[0]}"
            )
        same_device(name, x, tensors[0].device)
    if isinstance(unit_dim, Mapping):
        if not isinstance(activations, Mapping) or set(unit_dim) != set(activations):
            raise ValueError("unit_dim must have the keys of activations where it is a mapping")
        unit_dim = [unit_dim[key] for key in activations]
    if isinstance(unit_dim, Sequence) and not isinstance(unit_dim, str):
        if len(unit_dim) != len(tensors):
            raise ValueError(
                f"unit_dim must be an int or have one entry for each of the {len(tensors)} "
                f"activations, got {len(unit_dim)}"
            )
        unit_dims = list(unit_dim)
    else:
        unit_dims = [unit_dim] * len(tensors)
    axes = [unit_axis("unit_dim", axis, x) for axis, x in zip(unit_dims, tensors)]
    for name, x, axis in zip(names, tensors, axes):
        if x.shape[axis] == 0:
            raise ValueError(f"{name} must have at least one unit, got shape {tuple(x.shape)}")
    return tensors, axes


def named_layers(activations: Any) -> tuple[list[str], list[Tensor]]:
    """Return how messages name each of the tensors, and the tensors, not looked at yet."""
    if isinstance(activations, Tensor):
        return ["activations"], [activations]
    if isinstance(activations, Mapping):
        named = {f"activations[{key!r}]": x for key, x in activations.items()}
    elif isinstance(activations, Sequence) and not isinstance(activations, str):
        named = {f"activations[{i}]": x for i, x in enumerate(activations)}
    else:
        raise TypeError(
            "activations must be a torch.Tensor, a sequence or a mapping of tensors, "
            f"got {type(activations).__name__}"
        )
    if not named:
        raise ValueError("activations must hold at least one tensor, got none")
    return list(named), list(named.values())


def short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
