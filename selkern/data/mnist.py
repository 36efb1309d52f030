"""MNIST in its published idx files, compressed or not."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from selkern.data import _files
from selkern.data._readers import MappedReader
from selkern.data.images import ImageSet, Splits

__all__ = ["load_mnist"]

CLASSES = tuple("0123456789")
PARTS = ("train", "t10k")
KINDS = ("images-idx3-ubyte", "labels-idx1-ubyte")
FILES = tuple(
    f"{part}-{kind}{suffix}" for part in PARTS for kind in KINDS for suffix in ("", ".gz")
)
INNER = "MNIST/raw"

_IMAGES = (0x803, ("images", "rows", "columns"))
_LABELS = (0x801, ("labels",))
_CHUNK = 1 << 20


def load_mnist(folder: str | os.PathLike[str]) -> Splits:
    """Load MNIST, or a data set in the same files, such as Fashion-MNIST, from a folder.

    The files are the published ones: ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``,
    ``t10k-images-idx3-ubyte`` and ``t10k-labels-idx1-ubyte``, each as it stands or with ``.gz``.
    Those not compressed are mapped into memory, compressed ones are read whole.

    Parameters
    ----------
    folder : str or path
        The folder of the files, or one that holds them in ``MNIST/raw``, as torchvision does.

    Returns
    -------
    Splits
        ``train`` and ``test``, with images ``[1, H, W]``: 60,000 and 10,000 of 28 x 28.

    Raises
    ------
    TypeError
        If ``folder`` is not a path.
    FileNotFoundError
        If the folder or a file is missing.
    ValueError
        If a file has another magic number or size than its format says, a label is above 9, there
        is not a label for each image, or the two parts differ in the size of their images.

    Examples
    --------
    >>> train, test = load_mnist("data/mnist")  # doctest: +SKIP
    >>> train  # doctest: +SKIP
    ImageSet(60000 images of 1 x 28 x 28 in 10 classes)
    """
    where = _files.within(_files.folder("folder", folder), INNER, FILES)
    train, test = (_load_part(where, part) for part in PARTS)
    if train.image_shape != test.image_shape:
        raise ValueError(
            f"{where / PARTS[1]}-{KINDS[0]} must hold images of "
            f"{_files.times(train.image_shape[1:])} like the training images, "
            f"got {_files.times(test.image_shape[1:])}"
        )
    return Splits(train, test)


def _load_part(where: Path, part: str) -> ImageSet:
    images_file, labels_file = (_find(where, f"{part}-{kind}") for kind in KINDS)
    shape, images = _open(images_file, *_IMAGES)
    (count,), labels = _open(labels_file, *_LABELS)
    labels = np.array(labels)
    if labels.max() >= len(CLASSES):
        raise ValueError(f"{labels_file} must hold labels of 0 to 9, got {labels.max()}")
    if count != shape[0]:
        raise ValueError(
            f"{labels_file} must hold {shape[0]} labels, one for each image of "
            f"{images_file.name}, got {count}"
        )
    pixels: NDArray[np.uint8] | MappedReader = images
    if isinstance(images, np.memmap):
        rows, columns = shape[1:]
        pixels = MappedReader(images_file, images.offset, (count, rows, columns, 1))
    return ImageSet(pixels, labels, classes=CLASSES)


def _find(where: Path, name: str) -> Path:
    for path in (where / name, where / f"{name}.gz"):
        if path.exists():
            return _files.file(path)
    raise FileNotFoundError(f"{where} must hold {name} or {name}.gz, got neither")


def _open(path: Path, magic: int, axes: tuple[str, ...]) -> tuple[tuple[int, ...], NDArray[Any]]:
    """Return the shape of an idx file, and its values: mapped, or read where it is compressed."""
    if path.suffix == ".gz":
        return _read_compressed(path, magic, axes)
    with path.open("rb") as stream:
        shape = _read_header(path, stream, magic, axes)
        offset = stream.tell()
    expected, size = offset + math.prod(shape), path.stat().st_size
    if size != expected:
        raise _size_error(path, shape, expected, f"{size}")
    return shape, np.memmap(path, np.uint8, "r", offset, shape)


def _read_compressed(
    path: Path, magic: int, axes: tuple[str, ...]
) -> tuple[tuple[int, ...], NDArray[Any]]:
    try:
        with gzip.open(path, "rb") as stream:
            shape = _read_header(path, stream, magic, axes)
            offset, values = stream.tell(), bytearray()
            expected = offset + math.prod(shape)
            # The header is not believed: no more is taken up than the file turns out to hold.
            while len(values) <= expected - offset:
                chunk = stream.read(_CHUNK)
                if not chunk:
                    break
                values += chunk
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} must be a whole gzip file: {_files.line(error)}") from None
    size = offset + len(values)
    if size != expected:
        raise _size_error(path, shape, expected, "more" if size > expected else f"{size}")
    return shape, np.frombuffer(values, np.uint8).reshape(shape)


def _read_header(
    path: Path, stream: BinaryIO | gzip.GzipFile, magic: int, axes: tuple[str, ...]
) -> tuple[int, ...]:
    length = 4 * (1 + len(axes))
    header = stream.read(length)
    if len(header) != length:
        raise ValueError(f"{path} must have a header of {length} bytes, got {len(header)} bytes")
    found, *shape = struct.unpack(f">{1 + len(axes)}I", header)
    if found != magic:
        raise ValueError(f"{path} must have the magic number {magic:#x}, got {found:#x}")
    for axis, count in zip(axes, shape):
        if count == 0:
            raise ValueError(f"{path} must have at least 1 of {axis}, got 0")
    return tuple(shape)


def _size_error(path: Path, shape: tuple[int, ...], expected: int, size: str) -> ValueError:
    return ValueError(f"{path} must have {expected} bytes for {_files.times(shape)}, got {size}")
