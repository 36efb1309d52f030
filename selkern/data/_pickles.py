"""Pickles of plain data and arrays of bytes, read without running anything they name."""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selkern.data import _files

_PUTS = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
_GETS = ("GET", "BINGET", "LONG_BINGET")
_TUPLES = ("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3")
_MOST_TUPLES = 1000
# What these leave uppermost was there before, and may be a tuple.
_CHANGES = ("BUILD", "APPEND", "APPENDS", "SETITEM", "SETITEMS")
# Sets hash what they hold; the others can bring a tuple back. Plain data is written without them.
_REFUSED = ("EMPTY_SET", "ADDITEMS", "FROZENSET", "DUP", "POP", "POP_MARK")


def load_pickle(path: Path) -> Any:
    """Return what a pickle holds; whatever it names but NumPy's arrays of uint8 is refused.

    Nothing that the pickle names is called, not even of NumPy: arrays are made here. Strings that
    Python 2 wrote are bytes, as the pickle cannot say what they spell.
    """
    data = _files.file(path).read_bytes()
    try:
        _check_opcodes(data)
        return _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # Damaged pickles raise whatever they come upon.
        raise ValueError(
            f"{path} must be a pickle of plain data and uint8 arrays: {_files.line(error)}"
        ) from None


def _check_opcodes(data: bytes) -> None:
    """Refuse a pickle that ends early, or that takes far more memory or time than it has bytes.

    Where a tuple is a key, Python hashes all that it holds, however deep, and twice what it holds
    twice: a million tuples in one another crash it, and fifty pairs of the one before take months.
    """
    stream = io.BytesIO(data)
    opcodes: Iterator[Any] = pickletools.genops(stream)
    tuples = 0
    top = ""  # The opcode that left what is uppermost on the stack.
    memo: dict[int, str] = {}
    for count, (opcode, argument, _) in enumerate(opcodes):
        name = opcode.name
        if name in _REFUSED:
            raise ValueError(f"the opcode {name}")
        # The arguments of a call are held by nothing once it is made.
        tuples += (name in _TUPLES) - (name == "REDUCE")
        if tuples > _MOST_TUPLES:
            raise ValueError(f"more than {_MOST_TUPLES} tuples")
        if name in _PUTS:
            number = len(memo) if name == "MEMOIZE" else argument
            # Without an entry for each number below it, a large one only takes up memory.
            if not 0 <= number <= count:
                raise ValueError(f"a memo entry numbered {number}")
            memo[number] = top
        elif name in _GETS:
            top = memo.get(argument, "")
            if top in _TUPLES + _CHANGES:
                raise ValueError("a tuple that stands in more than one place")
        elif name not in ("PROTO", "FRAME"):
            top = name
    if stream.tell() != len(data):
        raise ValueError(f"{len(data) - stream.tell()} bytes after its end")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _Call(_ALLOWED[module, name])
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in it") from None


class _Call:
    """A function of this module under the name that pickles know it by.

    It has no state, so that a pickle cannot change what later ones run.
    """

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it sets the state of a function")


class _Dtype:
    """NumPy's uint8, which is the only one."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        """Take the byte order and flags, which mean nothing for bytes."""


class ByteArray:
    """What a pickled array becomes: ``values``, uint8, once its state is set."""

    __slots__ = ("values",)

    values: NDArray[np.uint8]

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self.values = _array(data, dtype, shape, "F" if fortran else "C")


def _array(data: Any, dtype: Any, shape: Any, order: Any) -> NDArray[np.uint8]:
    if not isinstance(dtype, _Dtype) or not isinstance(data, (bytes, bytearray)):
        raise pickle.UnpicklingError("its array is not of uint8")
    lengths = tuple(shape)
    if any(type(length) is not int or length < 0 for length in lengths):
        raise pickle.UnpicklingError("its array has a length that is not a whole number")
    if math.prod(lengths) != len(data):
        raise pickle.UnpicklingError(f"its array of shape {lengths} has {len(data)} bytes")
    return np.frombuffer(data, np.uint8).reshape(lengths, order="F" if order == "F" else "C")


def _reconstruct(*arguments: Any) -> ByteArray:
    return ByteArray()


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> ByteArray:
    array = ByteArray()
    array.values = _array(data, dtype, shape, order)
    return array


def _dtype(name: Any, *flags: Any) -> _Dtype:
    if name not in ("u1", b"u1", "uint8", b"uint8"):
        raise pickle.UnpicklingError("its array is not of uint8")
    return _Dtype()


def _encode(text: Any, encoding: Any) -> bytes:
    """Undo how Python 3 writes bytes for Python 2."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("its bytes are not written as latin1")
    return text.encode("latin1")


def _ndarray(*arguments: Any) -> Any:
    raise pickle.UnpicklingError("it calls ndarray")


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _ndarray,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    # What arrays are written with from pickle protocol 5 on.
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
    ("numpy._core.numeric", "_frombuffer"): _frombuffer,
}
