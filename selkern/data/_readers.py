"""Where the pixels of an image set lie: in memory, in a mapped file, or in a file for each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from selkern.data import _files
from selkern.data._packages import needed


@runtime_checkable
class PixelReader(Protocol):
    """Images that are read when asked for."""

    image_shape: tuple[int, int, int]

    def __len__(self) -> int: ...

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]: ...


class ArrayReader:
    """Images ``[N, H, W]`` or ``[N, H, W, C]`` of an array, which is not copied."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self._pixels = pixels if pixels.ndim == 4 else pixels[..., None]
        height, width, channels = self._pixels.shape[1:]
        self.image_shape = (height, width, channels)

    def __len__(self) -> int:
        return len(self._pixels)

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        return _gather(self._pixels, rows)


class MappedReader:
    """Images ``[N, H, W, C]`` that lie in a file one after another, from an offset on.

    Only the place in the file goes to other processes, which map it anew.
    """

    def __init__(self, path: Path, offset: int, shape: tuple[int, int, int, int]) -> None:
        self._path, self._offset, self._shape = path.absolute(), offset, shape
        self.image_shape = shape[1:]
        self._pixels = self._map()

    def __len__(self) -> int:
        return self._shape[0]

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        return _gather(self._pixels, rows)

    def _map(self) -> NDArray[np.uint8]:
        mapped = np.memmap(self._path, np.uint8, "r", self._offset, self._shape)
        return np.asarray(mapped)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_pixels"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._pixels = self._map()


class JpegReader:
    """JPEG files of one size, decoded when asked for; gray ones get three channels."""

    def __init__(self, paths: Sequence[str], size: int) -> None:
        needed("PIL.Image", "reading JPEG files")
        self._paths = list(paths)
        self.image_shape = (size, size, 3)

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        pixels = np.empty((len(rows), *self.image_shape), dtype=np.uint8)
        for image, row in zip(pixels, rows.tolist()):
            image[...] = self._decode(self._paths[row])
        return pixels

    def _decode(self, path: str) -> NDArray[np.uint8]:
        from PIL import Image

        expected = self.image_shape[:2]
        try:
            with Image.open(path, formats=("JPEG",)) as image:
                width, height = image.size
                if (height, width) == expected:
                    return np.asarray(image.convert("RGB"))
        except FileNotFoundError:
            raise FileNotFoundError(f"there is no {path}") from None
        except Exception as error:  # Decoders of damaged files raise what they come upon.
            raise ValueError(f"{path} must be a whole JPEG image: {_files.line(error)}") from None
        raise ValueError(
            f"{path} must have {_files.times(expected)} pixels, got {height} x {width}"
        )


def _gather(pixels: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return a copy of rows, read in the order in which they lie."""
    if np.all(rows[1:] >= rows[:-1]):
        return pixels[rows]
    order = np.argsort(rows, kind="stable")
    gathered = np.empty((len(rows), *pixels.shape[1:]), dtype=np.uint8)
    gathered[order] = pixels[rows[order]]
    return gathered
