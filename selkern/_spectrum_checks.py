"""Argument checks shared by the functions of covariances, spectra and symmetric matrices."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from selkern._checks import floating, integer, named_layers, same_device
from selkern._layout import result_dtype


def samples(name: str, x: Any) -> None:
    """Refuse anything but a dense floating tensor ``[..., N, D]``."""
    floating(name, x)
    if x.dim() < 2:
        raise ValueError(
            f"{name} must have at least 2 axes, [..., N, D], got shape {tuple(x.shape)}"
        )


def matrices(name: str, a: Any) -> None:
    """Refuse anything but a dense floating tensor ``[..., M, M]``."""
    floating(name, a)
    if a.dim() < 2 or a.shape[-1] != a.shape[-2]:
        raise ValueError(
            f"{name} must hold square matrices, [..., M, M], got shape {tuple(a.shape)}"
        )


def spectrum(name: str, x: Any) -> None:
    """Refuse anything but a dense floating tensor ``[..., R]``."""
    floating(name, x)
    if x.dim() < 1:
        raise ValueError(f"{name} must have at least 1 axis, [..., R], got shape ()")


def correction(name: str, value: Any, x: Tensor) -> int:
    """Return a correction that leaves the samples of ``x`` ``[..., N, D]`` a divisor."""
    number = integer("correction", value)
    if number < 0:
        raise ValueError(f"correction must be at least 0, got {number}")
    enough_samples(name, x, number)
    return number


def enough_samples(name: str, x: Tensor, correction: int) -> None:
    """Refuse samples ``[..., N, D]`` that are no more than ``correction``."""
    count = x.shape[-2]
    if count <= correction:
        raise ValueError(
            f"{name} must have more samples than correction, which is {correction}, "
            f"got N = {count} in shape {tuple(x.shape)}"
        )


def exponent(value: Any) -> float:
    """Return a finite exponent of at least zero."""
    number = _real("exponent", value)
    if not 0 <= number < math.inf:
        raise ValueError(f"exponent must be finite and at least 0, got {value}")
    return number


def anchor(value: Any) -> int:
    """Return a rank, counted from one."""
    rank = integer("anchor", value)
    if not 1 <= rank < 2**31:
        raise ValueError(f"anchor must be a rank, counted from 1, got {rank}")
    return rank


def enough_ranks(name: str, ranks: int, anchor: int, x: Tensor | None = None) -> None:
    """Refuse a spectrum without a rank after ``anchor``; ``x`` ``[..., N, D]`` is where it is from.

    Parameters
    ----------
    name : str
        What the caller passed: the spectrum, or the activations ``x``.
    ranks : int
        Length of the spectrum.
    anchor : int
        Rank at which the power law is tied to the spectrum.
    x : Tensor, optional
        The activations.
    """
    if ranks > anchor:
        return
    cure = "where the last batch is short, give the DataLoader drop_last=True"
    if x is not None and x.shape[-1] <= anchor:
        cure = "lower the anchor, or leave so narrow a layer out"
    source = "" if x is None else f" from N = {x.shape[-2]} samples and D = {x.shape[-1]} units"
    raise ValueError(
        f"{name} must have at least {anchor + 1} ranks for anchor={anchor}, got {ranks}{source}; "
        f"{cure}"
    )


def width(value: Any, ranks: int) -> int:
    """Return the number that the penalty is divided by; without one, ``ranks``."""
    if value is None:
        return ranks
    number = integer("width", value)
    if not 1 <= number < 2**63:
        raise ValueError(f"width must be at least 1 and fit 64 bits, got {number}")
    return number


def kappa(name: str, value: Any, batch: Sequence[int], like: Tensor) -> Tensor | None:
    """Return ``value`` as a constant of shape ``batch`` and the result dtype of ``like``."""
    if value is None:
        return None
    dtype = result_dtype(like.dtype)
    if isinstance(value, Tensor):
        floating(name, value)
        if value.dim() and value.shape != torch.Size(batch):
            allowed = f"() or {tuple(batch)}" if batch else "()"
            raise ValueError(f"{name} must have shape {allowed}, got {tuple(value.shape)}")
        same_device(name, value, like.device)
        return value.detach().to(dtype).expand(batch)
    number = _real(name, value)
    if not 0 < number < math.inf:
        raise ValueError(f"{name} must be finite and greater than 0, got {value}")
    return torch.full(tuple(batch), number, dtype=dtype, device=like.device)


def basis(name: str, value: Any, x: Tensor) -> Tensor | None:
    """Return ``value`` as a constant ``[D, R]`` of the result dtype of ``x`` ``[..., N, D]``."""
    if value is None:
        return None
    floating(name, value)
    if value.dim() != 2 or value.shape[0] != x.shape[-1]:
        raise ValueError(
            f"{name} must have shape [{x.shape[-1]}, R], one row a unit, got {tuple(value.shape)}"
        )
    same_device(name, value, x.device)
    return value.detach().to(result_dtype(x.dtype))


def layers(activations: Any) -> tuple[list[str], list[Tensor]]:
    """Return a name for each of ``activations`` and the tensor, flattened to ``[N, D]``."""
    names, tensors = named_layers(activations)
    for name, x in zip(names, tensors):
        floating(name, x)
        if x.dim() < 2:
            raise ValueError(
                f"{name} must have at least 2 axes, [N, ...], got shape {tuple(x.shape)}"
            )
        same_device(name, x, tensors[0].device)
    return names, [x.flatten(1) for x in tensors]


def one_per_layer(name: str, value: Any, activations: Any) -> list[tuple[str, Any]]:
    """Return what ``value`` holds for each of ``activations``, and how messages name it."""
    if isinstance(activations, Tensor):
        return [(name, value)]
    count = len(activations)
    if value is None:
        return [(name, None)] * count
    if isinstance(value, Mapping):
        if not isinstance(activations, Mapping) or set(value) != set(activations):
            raise ValueError(f"{name} must have the keys of activations where it is a mapping")
        return [(f"{name}[{key!r}]", value[key]) for key in activations]
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise TypeError(
            f"{name} must be a sequence with one entry for each of the {count} activations, "
            f"or None, got {type(value).__name__}"
        )
    if len(value) != count:
        raise ValueError(
            f"{name} must have one entry for each of the {count} activations, got {len(value)}"
        )
    return [(f"{name}[{i}]", entry) for i, entry in enumerate(value)]


def _real(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a real number, got {type(value).__name__}")
    try:
        return float(value)
    except OverflowError:
        return math.inf
