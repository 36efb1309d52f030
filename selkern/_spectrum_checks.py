"""Argument checks shared by the functions of covariances, spectra and symmetric matrices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from selkern._checks import floating, integer, named_layers, real, same_device
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
    if x.shape[-2] <= number:
        raise ValueError(
            f"{name} must have more samples than correction, which is {number}, "
            f"got N = {x.shape[-2]} in shape {tuple(x.shape)}"
        )
    return number


def exponent(value: Any) -> float:
    """Return a finite exponent of at least zero."""
    number = real("exponent", value)
    if not 0 <= number < math.inf:
        raise ValueError(f"exponent must be finite and at least 0, got {value}")
    return number


def anchor(value: Any) -> int:
    """Return a rank, counted from one."""
    rank = integer("anchor", value)
    if not 1 <= rank < 2**31:
        raise ValueError(f"anchor must be a rank, counted from 1, got {rank}")
    return rank


_DROP_LAST = "where the last batch is short, give the DataLoader drop_last=True"


def enough_ranks(name: str, x: Tensor, anchor: int) -> None:
    """Refuse a spectrum ``[..., R]`` without a rank after ``anchor``."""
    ranks = x.shape[-1]
    if ranks <= anchor:
        raise ValueError(
            f"{name} must have at least {anchor + 1} ranks for anchor={anchor}, got {ranks}; "
            f"lower the anchor or, {_DROP_LAST}"
        )


def enough_ranks_of_samples(name: str, x: Tensor, anchor: int) -> None:
    """Refuse samples ``[N, D]`` whose covariance has no rank after ``anchor`` but zeros."""
    count, units = x.shape
    ranks = max(0, min(count - 1, units))
    if ranks <= anchor:
        is_narrow = units <= anchor
        cure = "lower the anchor, or leave so narrow a layer out" if is_narrow else _DROP_LAST
        raise ValueError(
            f"{name} must have at least {anchor + 1} ranks that can be above 0 for "
            f"anchor={anchor}, got {ranks} from N = {count} samples, of which the mean takes a "
            f"rank, and D = {units} units; {cure}"
        )


def enough_ranks_of_basis(name: str, x: Tensor, basis: Tensor, anchor: int) -> None:
    """Refuse samples ``[N, D]`` without variance, and a basis without a rank after ``anchor``."""
    (count, units), ranks = x.shape, basis.shape[1]
    if ranks <= anchor:
        is_narrow = units <= anchor
        cure = "leave so narrow a layer out" if is_narrow else "give a basis of more directions"
        raise ValueError(
            f"{name} must have at least {anchor + 1} ranks for anchor={anchor}, got {ranks}, the "
            f"directions of its basis, from N = {count} samples and D = {units} units; lower the "
            f"anchor, or {cure}"
        )
    if count < 2:
        raise ValueError(
            f"{name} must have at least 2 samples, got N = {count} in shape {tuple(x.shape)}; "
            f"{_DROP_LAST}"
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
    number = real(name, value)
    if not 0 < number < math.inf:
        raise ValueError(f"{name} must be finite and greater than 0, got {value}")
    return torch.full(tuple(batch), number, dtype=dtype, device=like.device)


def basis(name: str, value: Any, x: Tensor) -> Tensor | None:
    """Return ``value`` as a constant ``[D, R]`` of the result dtype of ``x`` ``[..., N, D]``."""
    if value is None:
        return None
    directions(name, value, x.shape[-1])
    same_device(name, value, x.device)
    return value.detach().to(result_dtype(x.dtype))


def directions(name: str, value: Any, units: int | None = None) -> None:
    """Refuse anything but a dense floating tensor ``[units, R]``."""
    floating(name, value)
    if value.dim() != 2 or units not in (None, value.shape[0]):
        rows = "D" if units is None else units
        raise ValueError(
            f"{name} must have shape [{rows}, R], one row a unit, got {tuple(value.shape)}"
        )


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


class SpectralLayer(NamedTuple):
    """A layer of the spectral loss: samples ``[N, D]`` and the constants given for it."""

    x: Tensor
    basis: Tensor | None
    kappa: Tensor | None


def spectral_layers(
    activations: Any, anchor: int, basis_of_each: Any, kappa_of_each: Any
) -> list[SpectralLayer]:
    """Return the layers of a spectral loss, each of which has a rank after the anchor."""
    names, tensors = layers(activations)
    bases = one_per_layer("basis", basis_of_each, activations)
    kappas = one_per_layer("kappa", kappa_of_each, activations)
    found = []
    for name, x, of_basis, of_kappa in zip(names, tensors, bases, kappas):
        layer = SpectralLayer(x, basis(*of_basis, x), kappa(*of_kappa, (), x))
        if layer.basis is None:
            enough_ranks_of_samples(name, x, anchor)
        else:
            enough_ranks_of_basis(name, x, layer.basis, anchor)
        found.append(layer)
    return found


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
