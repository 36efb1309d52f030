"""Numeric variables of MATLAB files, of version 5 (and 6, 7) and of version 7.3."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from numpy.typing import NDArray

from selkern.data import _files, _matlab5
from selkern.data._packages import needed

NUMERIC = (
    "double",
    "single",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
)
STRUCT = "struct"

_HDF5 = b"\x89HDF\r\n\x1a\n"
_USER_BLOCK = 512

Result = TypeVar("Result")


class Variable(NamedTuple):
    """What a file says of a variable."""

    kind: str
    shape: tuple[int, ...]

    @property
    def is_numeric(self) -> bool:
        """Whether it holds plain numbers."""
        return self.kind in NUMERIC


class MatlabFile:
    """The variables of a file, and the values of those asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.variables: dict[str, Variable] = {}

    def read(self, name: str) -> NDArray[Any]:
        """Return the values of a numeric variable, with MATLAB's axes."""
        raise NotImplementedError

    def read_fields(self, name: str, fields: Sequence[str]) -> list[NDArray[Any]] | None:
        """Return numeric fields of a scalar struct, or nothing where it has others."""
        raise NotImplementedError

    def listing(self) -> str:
        """Return the variables, with their shapes, in one line."""
        described = (
            f"{name} [{_files.times(variable.shape)}] {variable.kind}"
            for name, variable in self.variables.items()
        )
        return ", ".join(described) or "no variables"

    def _guarded(self, action: Callable[[], Result]) -> Result:
        try:
            return action()
        except ImportError:
            raise
        except Exception as error:  # Damaged files raise whatever their readers come upon.
            raise ValueError(
                f"{self.path} must be a whole MATLAB file: {_files.line(error)}"
            ) from None


def open_matlab(path: Path) -> MatlabFile:
    """Return a MATLAB file whose variables are known and whose values are not read yet."""
    with _files.file(path).open("rb") as stream:
        start = stream.read(_USER_BLOCK + len(_HDF5))
    if start.startswith(_HDF5) or start[_USER_BLOCK:] == _HDF5:
        return _Version73(path)
    order = _matlab5.byte_order(start)
    if order is None:
        raise ValueError(f"{path} must be a MATLAB file of version 5 or 7.3, got another header")
    return _Version5(path, order)


class _Version5(MatlabFile):
    def __init__(self, path: Path, order: str) -> None:
        super().__init__(path)
        self._order = order
        found = self._guarded(lambda: _matlab5.list_matrices(path, order))
        self._positions = {name: position for name, (position, _) in found.items()}
        for name, (_, matrix) in found.items():
            self.variables[name] = Variable(matrix.kind, matrix.shape)

    def read(self, name: str) -> NDArray[Any]:
        return self._guarded(lambda: _matlab5.values_of(self._matrix(name), self._order))

    def read_fields(self, name: str, fields: Sequence[str]) -> list[NDArray[Any]] | None:
        def load() -> list[NDArray[Any]] | None:
            found = _matlab5.fields_of(self._matrix(name), fields, self._order)
            if found is None or not all(field.kind in NUMERIC for field in found):
                return None
            return [_matlab5.values_of(field, self._order) for field in found]

        return self._guarded(load)

    def _matrix(self, name: str) -> _matlab5.Matrix:
        return _matlab5.read_matrix(self.path, self._positions[name], self._order)


class _Version73(MatlabFile):
    """HDF5, in which MATLAB's axes lie in the opposite order."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            self._h5py = needed("h5py", "MATLAB 7.3")
        except ImportError:
            raise ImportError(
                f"{path} is of MATLAB 7.3: pip install h5py, or save it in MATLAB with '-v7'"
            ) from None
        self.variables = self._guarded(self._list)

    def read(self, name: str) -> NDArray[Any]:
        return self._guarded(lambda: self._values(name))

    def read_fields(self, name: str, fields: Sequence[str]) -> list[NDArray[Any]] | None:
        def load() -> list[NDArray[Any]] | None:
            with self._h5py.File(self.path, "r") as file:
                if not set(fields) <= set(file[name]):
                    return None
                found = [self._describe(file[name][field]) for field in fields]
            if not all(field.is_numeric for field in found):
                return None
            return [self._values(f"{name}/{field}") for field in fields]

        return self._guarded(load)

    def _list(self) -> dict[str, Variable]:
        with self._h5py.File(self.path, "r") as file:
            named = {name: file[name] for name in file if not name.startswith("#")}
            return {name: self._describe(item) for name, item in named.items()}

    def _describe(self, item: Any) -> Variable:
        kind = item.attrs.get("MATLAB_class", b"unknown")
        kind = kind.decode("latin1") if isinstance(kind, bytes) else str(kind)
        shape = item.shape[::-1] if isinstance(item, self._h5py.Dataset) else (1, 1)
        return Variable(kind, shape)

    def _values(self, name: str) -> NDArray[Any]:
        with self._h5py.File(self.path, "r") as file:
            item = file[name]
            if not isinstance(item, self._h5py.Dataset) or item.dtype.hasobject:
                raise ValueError(f"{name} is not numeric")
            # What is not stored in the file itself would come from others, or out of nothing.
            if item.nbytes > _files.MOST_COMPRESSED * item.id.get_storage_size():
                raise ValueError(f"{name} is not stored in it")
            if item.external or item.is_virtual or item.file.filename != file.filename:
                raise ValueError(f"{name} is stored in another file")
            return item[()].T
