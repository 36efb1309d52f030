"""Tensors and NumPy arrays alike: checked, brought to float64, and given back as they came."""

from __future__ import annotations

from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selkern import _checks
from selkern._layout import result_dtype

TensorOrArray: TypeAlias = "Tensor | NDArray[Any]"
Array = TypeVar("Array", Tensor, NDArray[Any])

_NUMPY_DTYPES = ("float16", "float32", "float64")


def check(name: str, x: Any, axes: str) -> None:
    """Refuse anything but a dense floating tensor or array with at least the axes named."""
    if isinstance(x, np.ndarray):
        if x.dtype.name not in _NUMPY_DTYPES:
            raise TypeError(f"{name} must be float16, float32 or float64, got {x.dtype.name}")
    elif isinstance(x, Tensor):
        _checks.floating(name, x)
    else:
        raise TypeError(f"{name} must be a torch.Tensor or numpy.ndarray, got {type(x).__name__}")
    least = len(axes.split(",")) - ("..." in axes)
    if x.ndim < least:
        raise ValueError(
            f"{name} must have at least {least} {'axis' if least == 1 else 'axes'}, [{axes}], "
            f"got shape {tuple(x.shape)}"
        )


def check_pair(names: tuple[str, str], pair: tuple[Any, Any], axes: str) -> None:
    """Refuse what :func:`check` does, and two that differ in kind, shape or device."""
    for name, x in zip(names, pair):
        check(name, x, axes)
    (first, second), (x, y) = names, pair
    if isinstance(x, Tensor) is not isinstance(y, Tensor):
        raise TypeError(
            f"{second} must be a {type(x).__name__} like {first}, got {type(y).__name__}"
        )
    if x.shape != y.shape:
        raise ValueError(
            f"{second} must have shape {tuple(x.shape)} like {first}, got {tuple(y.shape)}"
        )
    if isinstance(x, Tensor):
        _checks.same_device(second, y, x.device, others=first)


def doubles(x: TensorOrArray) -> Tensor:
    """Return the values of ``x`` as a float64 tensor, which is not to be written to."""
    if isinstance(x, Tensor):
        return x.double()
    # A copy, because torch takes neither read-only memory nor negative strides.
    return torch.from_numpy(np.array(x, dtype=np.float64))


def result_dtype_of(*inputs: TensorOrArray) -> torch.dtype:
    """Return float64 if any input is float64, and float32 otherwise."""
    double = any(x.dtype in (torch.float64, np.float64) for x in inputs)
    return result_dtype(torch.float64 if double else torch.float32)


def like(result: Tensor, x: Array, *others: Array) -> Array:
    """Return a floating result in the kind of ``x`` and the result dtype of all inputs."""
    return same_kind(result.to(result_dtype_of(x, *others)), x)


def same_kind(result: Tensor, x: Array) -> Array:
    """Return a result as it is: a tensor for a tensor, an array or a NumPy scalar for an array."""
    if isinstance(x, Tensor):
        return result
    # What has no axes becomes a scalar, as by NumPy's own functions.
    return result.numpy()[()]


def samples(name: str, x: Tensor) -> Tensor:
    """Return ``x`` ``[..., N, D]`` less its mean over the samples, of which it needs two."""
    if x.shape[-2] < 2:
        raise ValueError(f"{name} must have at least 2 samples, got shape {tuple(x.shape)}")
    centered = x - x.mean(-2, keepdim=True)
    # Twice, or the rounding of the mean would look like variance where nothing varies.
    return centered.sub_(centered.mean(-2, keepdim=True))


def products(centered: Tensor) -> Tensor:
    """Return the smaller of ``x x^T`` and ``x^T x``, which share all eigenvalues but zeros."""
    few_samples = centered.shape[-2] < centered.shape[-1]
    return centered @ centered.mT if few_samples else centered.mT @ centered
