"""MATLAB files of version 5, which versions 6 and 7 of MATLAB also write.

A file is a row of elements, each a tag of its type and length and then its contents; a variable is
one whose contents are elements again, and may be compressed as a whole. Every length is held
against what is there before it is used: readers in C have been seen to crash on damaged files.
"""

from __future__ import annotations

import math
import mmap
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

HEADER = 128

_CLASSES = (
    "cell",
    "struct",
    "object",
    "char",
    "sparse",
    "double",
    "single",
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "function",
    "opaque",
)
_STORED = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
_TEXT, _INT32, _UINT32, _MATRIX, _COMPRESSED = 1, 5, 6, 14, 15
_COMPLEX, _LOGICAL = 0x800, 0x200
# Of a compressed variable, as much as its class, its shape and its name may take.
_BEGINNING = 4096


class Matrix(NamedTuple):
    """A variable or a field: what it is, and the elements that hold its values."""

    name: str
    kind: str
    shape: tuple[int, ...]
    contents: memoryview


def byte_order(header: bytes) -> str | None:
    """Return ``"<"`` or ``">"`` for the header of such a file, and None for another."""
    return {b"\x00\x01IM": "<", b"\x01\x00MI": ">"}.get(header[HEADER - 4 : HEADER])


def list_matrices(path: Path, order: str) -> dict[str, tuple[int, Matrix]]:
    """Return each variable by its name, with its place in the file; contents may be cut off."""
    found = {}
    data = _mapped(path)
    position = HEADER
    while position < len(data):
        kind, contents, following = _element(data, position, order)
        if kind == _COMPRESSED:
            start = zlib.decompressobj().decompress(contents, _BEGINNING)
            kind, contents, _ = _element(memoryview(start), 0, order, is_whole=False)
        if kind == _MATRIX:
            matrix = _matrix(contents, order)
            if matrix.name:  # Without one, it is MATLAB's own.
                found[matrix.name] = position, matrix
        position = following
    return found


def read_matrix(path: Path, position: int, order: str) -> Matrix:
    """Return the variable at a place in the file."""
    kind, contents, _ = _element(_mapped(path), position, order)
    if kind == _COMPRESSED:
        contents = _decompressed(contents, order)
    return _matrix(contents, order)


def values_of(matrix: Matrix, order: str) -> NDArray[Any]:
    """Return the values of a numeric matrix in the dtype of its class."""
    stored, contents, _ = _element(matrix.contents, 0, order)
    if stored not in _STORED:
        raise ValueError(f"{matrix.name} has values of the unknown type {stored}")
    values = np.frombuffer(contents, order + _STORED[stored])
    if math.prod(matrix.shape) != len(values):
        raise ValueError(f"{matrix.name} of shape {matrix.shape} has {len(values)} values")
    dtype = {"double": "float64", "single": "float32"}.get(matrix.kind, matrix.kind)
    return values.reshape(matrix.shape, order="F").astype(dtype, copy=False)


def fields_of(matrix: Matrix, wanted: Sequence[str], order: str) -> list[Matrix] | None:
    """Return fields of a struct, or None where it is not one struct or has not all of them."""
    kind, contents, position = _element(matrix.contents, 0, order)
    if kind != _INT32 or len(contents) != 4:
        raise ValueError(f"{matrix.name} has no length of field names")
    width = int(np.frombuffer(contents, order + "i4")[0])
    kind, contents, position = _element(matrix.contents, position, order)
    if kind != _TEXT or width < 1 or len(contents) % width:
        raise ValueError(f"{matrix.name} has no names of fields")
    text = bytes(contents)
    names = [_text(text[start : start + width]) for start in range(0, len(text), width)]
    if math.prod(matrix.shape) != 1 or not set(wanted) <= set(names):
        return None
    fields = dict(zip(names, _matrices(matrix, len(names), position, order)))
    return [fields[name] for name in wanted]


def _matrices(matrix: Matrix, count: int, position: int, order: str) -> Iterator[Matrix]:
    for _ in range(count):
        kind, contents, position = _element(matrix.contents, position, order)
        if kind != _MATRIX:
            raise ValueError(f"{matrix.name} has a field of the unknown type {kind}")
        yield _matrix(contents, order)


def _mapped(path: Path) -> memoryview:
    with path.open("rb") as stream:
        return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))


def _element(
    data: memoryview, position: int, order: str, is_whole: bool = True
) -> tuple[int, memoryview, int]:
    """Return the type and contents of an element, and where the next one begins."""
    if len(data) - position < 8:
        raise ValueError(f"it ends within the tag of an element, {len(data)} bytes on")
    kind, length = np.frombuffer(data[position : position + 8], order + "u4").tolist()
    if kind >> 16:  # Up to 4 bytes of contents, which take the place of the length.
        kind, length = kind & 0xFFFF, kind >> 16
        if length > 4:
            raise ValueError(f"a short element has {length} bytes")
        return kind, data[position + 4 : position + 4 + length], position + 8
    start, end = position + 8, position + 8 + length
    if end > len(data) and is_whole:
        raise ValueError(f"an element of {length} bytes has only {len(data) - start}")
    return kind, data[start:end], end if kind == _COMPRESSED else end + -length % 8


def _decompressed(contents: memoryview, order: str) -> memoryview:
    unpacker = zlib.decompressobj()
    tag = unpacker.decompress(contents, 8)
    if len(tag) != 8:
        raise ValueError("a compressed variable is empty")
    length = int(np.frombuffer(tag, order + "u4")[1])
    data = unpacker.decompress(unpacker.unconsumed_tail, length + 1)
    if len(data) != length or not unpacker.eof:
        raise ValueError(f"a compressed variable has not the {length} bytes it should have")
    return memoryview(data)


def _matrix(contents: memoryview, order: str) -> Matrix:
    kind, flags, position = _element(contents, 0, order)
    if kind != _UINT32 or len(flags) != 8:
        raise ValueError("a variable has no flags")
    bits = int(np.frombuffer(flags, order + "u4")[0])
    if not 1 <= bits & 0xFF <= len(_CLASSES):
        raise ValueError(f"a variable has the unknown class {bits & 0xFF}")
    kind, lengths, position = _element(contents, position, order)
    if kind != _INT32 or len(lengths) % 4 or len(lengths) < 8:
        raise ValueError("a variable has no shape")
    shape = tuple(np.frombuffer(lengths, order + "i4").tolist())
    if min(shape) < 0:
        raise ValueError(f"a variable has the shape {shape}")
    kind, name, position = _element(contents, position, order)
    if kind != _TEXT:
        raise ValueError("a variable has no name")
    return Matrix(_text(bytes(name)), _kind(bits), shape, contents[position:])


def _kind(bits: int) -> str:
    kind = _CLASSES[(bits & 0xFF) - 1]
    return "logical" if bits & _LOGICAL else f"complex {kind}" if bits & _COMPLEX else kind


def _text(data: bytes) -> str:
    return data.split(b"\x00")[0].decode("ascii", errors="replace")
