"""Files that were written by others: found, measured and refused before anything is read."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# Deflate, which gzip, MATLAB and HDF5 use, makes nothing smaller than by this factor.
MOST_COMPRESSED = 1032

_NPY_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_LONGEST_NPY_HEADER = 1 << 16


class NpyHeader(NamedTuple):
    """What a .npy file says of its array, and where the array begins."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    offset: int


def path_of(name: str, value: Any) -> Path:
    """Return an argument that names a file or a folder."""
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name} must be a str or a path, got {type(value).__name__}")
    return Path(os.fsdecode(value))


def folder(name: str, value: Any) -> Path:
    """Return an argument that names a folder there is."""
    path = path_of(name, value)
    if not path.exists():
        raise FileNotFoundError(f"{name} must be a folder, but there is no {path}")
    if not path.is_dir():
        raise ValueError(f"{name} must be a folder, got the file {path}")
    return path


def file(path: Path) -> Path:
    """Return the path of a file there is."""
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}")
    if not path.is_file():
        raise ValueError(f"{path} must be a plain file")
    return path


def within(parent: Path, inner: str, names: Iterable[str]) -> Path:
    """Return ``parent``, or the folder ``inner`` in it where only that holds one of the names."""
    if not any((parent / name).exists() for name in names) and (parent / inner).is_dir():
        return parent / inner
    return parent


def folders(parent: Path) -> list[str]:
    """Return the sorted names of the folders in a folder, but for hidden ones."""
    with os.scandir(parent) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def line(error: BaseException) -> str:
    """Return an error in one line of bounded length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."


def times(shape: Iterable[int]) -> str:
    return " x ".join(str(length) for length in shape)


def npy_header(path: Path) -> NpyHeader:
    """Return the header of a .npy file of numbers whose size is what the header says."""
    with file(path).open("rb") as stream:
        start = io.BytesIO(stream.read(_LONGEST_NPY_HEADER))
    try:
        version = np.lib.format.read_magic(start)
        shape, fortran, dtype = _NPY_HEADERS[version](start)
    except KeyError:
        raise ValueError(f"{path} must be a .npy file of version 1.0 or 2.0") from None
    except Exception as error:  # The header is Python source, parsed by many hands.
        raise ValueError(f"{path} must be a .npy file: {line(error)}") from None
    if dtype.hasobject:
        raise ValueError(
            f"{path} must hold numbers, got pickled Python objects, which are not loaded"
        )
    _check_npy_size(path, shape, dtype, start.tell())
    return NpyHeader(shape, dtype, fortran, start.tell())


def _check_npy_size(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], offset: int) -> None:
    if any(isinstance(length, bool) or length < 0 for length in shape):
        raise ValueError(f"{path} must have a shape of no negative length, got {shape}")
    expected, size = offset + math.prod(shape) * dtype.itemsize, path.stat().st_size
    if size != expected:
        raise ValueError(
            f"{path} must have {expected} bytes for {dtype.name} of shape {shape}, got {size}"
        )
