"""CIFAR-10 in its published pickles, and CIFAR-10-C in its published arrays."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selkern.data import _files
from selkern.data._pickles import ByteArray, load_pickle
from selkern.data._readers import MappedReader
from selkern.data.corrupted import SEVERITIES, CorruptedSets, in_the_order_of_the_field
from selkern.data.images import ImageSet, Splits

__all__ = ["load_cifar10", "load_cifar10_c"]

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
TRAIN_FILES = tuple(f"data_batch_{number}" for number in range(1, 6))
FILES = (*TRAIN_FILES, "test_batch")
INNER = "cifar-10-batches-py"
CORRUPTED_LABELS = "labels.npy"
CORRUPTED_INNER = "CIFAR-10-C"

_META = "batches.meta"
_SIDE = 32
_VALUES = 3 * _SIDE * _SIDE


def load_cifar10(folder: str | os.PathLike[str]) -> Splits:
    """Load CIFAR-10 from its published pickles for Python.

    These are ``data_batch_1`` to ``data_batch_5`` and ``test_batch``, and ``batches.meta`` with the
    names of the classes; where that is missing, the names are the published ones. The pickles are
    read whole, and nothing they name is run: any that names more than NumPy's arrays is refused.

    Parameters
    ----------
    folder : str or path
        The folder ``cifar-10-batches-py``, or the one that holds it.

    Returns
    -------
    Splits
        ``train`` and ``test``: 50,000 and 10,000 images ``[3, 32, 32]``.

    Raises
    ------
    TypeError
        If ``folder`` is not a path.
    FileNotFoundError
        If the folder or a file is missing.
    ValueError
        If a file is damaged, or a pickle of anything but the published layout, a label is not that
        of a class, or there is not a label for each image.

    Examples
    --------
    >>> train, test = load_cifar10("data/cifar-10-batches-py")  # doctest: +SKIP
    >>> train  # doctest: +SKIP
    ImageSet(50000 images of 3 x 32 x 32 in 10 classes)
    """
    where = _files.within(_files.folder("folder", folder), INNER, FILES)
    for name in FILES:
        _files.file(where / name)
    classes = _class_names(where / _META) if (where / _META).exists() else CLASSES
    train = [_load_batch(where / name) for name in TRAIN_FILES]
    return Splits(_image_set(train, classes), _image_set([_load_batch(where / FILES[-1])], classes))


def load_cifar10_c(folder: str | os.PathLike[str]) -> CorruptedSets:
    """Open CIFAR-10-C, the test set of CIFAR-10 under corruptions (Hendrycks & Dietterich, 2019).

    Every file ``<corruption>.npy`` in the folder is a corruption, uint8 ``[5 N, 32, 32, 3]`` with
    the severities one after another, and ``labels.npy`` holds the labels of them all. The arrays
    are mapped into memory, and nothing is unpickled.

    Parameters
    ----------
    folder : str or path
        The folder ``CIFAR-10-C``, or the one that holds it.

    Returns
    -------
    CorruptedSets
        Images ``[3, 32, 32]``, 10,000 a severity. They are paired: row by row the images of the
        test set.

    Raises
    ------
    TypeError
        If ``folder`` is not a path.
    FileNotFoundError
        If the folder, ``labels.npy`` or every corruption is missing.
    ValueError
        If an array has another size, shape or dtype than its format says, a label is not that of a
        class, or the labels are not the same at every severity.

    Examples
    --------
    >>> corrupted = load_cifar10_c("data/CIFAR-10-C")  # doctest: +SKIP
    >>> corrupted.load("fog", severity=5)  # doctest: +SKIP
    ImageSet(10000 images of 3 x 32 x 32 in 10 classes)
    """
    where = _files.within(_files.folder("folder", folder), CORRUPTED_INNER, [CORRUPTED_LABELS])
    labels = _corrupted_labels(where / CORRUPTED_LABELS)
    paths = {path.stem: path for path in where.glob("*.npy") if path.name != CORRUPTED_LABELS}
    if not paths:
        raise FileNotFoundError(f"{where} must hold a <corruption>.npy, got none")
    offsets = {name: _corrupted_offset(path, len(labels)) for name, path in paths.items()}
    return CorruptedSets(
        in_the_order_of_the_field(paths),
        CLASSES,
        partial(_load_corrupted, paths, offsets, labels),
        is_paired=True,
    )


def _load_batch(path: Path) -> tuple[NDArray[np.uint8], list[int]]:
    batch = load_pickle(path)
    data, labels = _entry(path, batch, "data"), _entry(path, batch, "labels")
    if not isinstance(data, ByteArray) or not hasattr(data, "values"):
        raise ValueError(f"{path} must hold data as an array, got {type(data).__name__}")
    pixels = data.values
    if pixels.ndim != 2 or pixels.shape[1] != _VALUES or not len(pixels):
        raise ValueError(f"{path} must hold data of shape [N, {_VALUES}], got {pixels.shape}")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise ValueError(f"{path} must hold labels as a list of int")
    if len(labels) != len(pixels):
        raise ValueError(
            f"{path} must hold {len(pixels)} labels, one for each image, got {len(labels)}"
        )
    for label in (min(labels), max(labels)):
        if not 0 <= label < len(CLASSES):
            raise ValueError(f"{path} must hold labels of 0 to 9, got {label}")
    return pixels, labels


def _entry(path: Path, batch: Any, key: str) -> Any:
    if not isinstance(batch, dict):
        raise ValueError(f"{path} must hold a dict, got {type(batch).__name__}")
    for spelling in (key.encode(), key):
        if spelling in batch:
            return batch[spelling]
    raise ValueError(f"{path} must hold a dict with the key {key!r}")


def _class_names(path: Path) -> tuple[str, ...]:
    names = _entry(path, load_pickle(path), "label_names")
    if not isinstance(names, list) or len(names) != len(CLASSES):
        raise ValueError(f"{path} must hold a list of {len(CLASSES)} label_names")
    if not all(isinstance(name, (str, bytes)) for name in names):
        raise ValueError(f"{path} must hold label_names that are strings")
    return tuple(n if isinstance(n, str) else n.decode(errors="replace") for n in names)


def _image_set(
    batches: list[tuple[NDArray[np.uint8], list[int]]], classes: tuple[str, ...]
) -> ImageSet:
    planes = np.concatenate([pixels for pixels, _ in batches]).reshape(-1, 3, _SIDE, _SIDE)
    labels = [label for _, labels in batches for label in labels]
    return ImageSet(planes.transpose(0, 2, 3, 1), labels, classes=classes)


def _corrupted_labels(path: Path) -> NDArray[np.int64]:
    """Return the labels of one severity, which are those of all."""
    header = _files.npy_header(path)
    severities = len(SEVERITIES)
    if header.dtype != np.uint8 or len(header.shape) != 1:
        raise ValueError(
            f"{path} must be uint8 of shape [{severities} N], "
            f"got {header.dtype.name} of shape {list(header.shape)}"
        )
    if header.shape[0] % severities or header.shape[0] == 0:
        raise ValueError(
            f"{path} must hold the labels of {severities} severities, got {header.shape[0]} labels"
        )
    labels = np.load(path, mmap_mode="r", allow_pickle=False).reshape(severities, -1)
    if (labels != labels[0]).any():
        raise ValueError(f"{path} must hold the same labels at every severity")
    if labels.max() >= len(CLASSES):
        raise ValueError(f"{path} must hold labels of 0 to 9, got {labels.max()}")
    return labels[0].astype(np.int64)


def _corrupted_offset(path: Path, images: int) -> int:
    header = _files.npy_header(path)
    expected = (len(SEVERITIES) * images, _SIDE, _SIDE, 3)
    if header.dtype != np.uint8 or header.shape != expected or header.fortran:
        raise ValueError(
            f"{path} must be uint8 of shape {expected} in C order, like {CORRUPTED_LABELS}, got "
            f"{header.dtype.name} of shape {header.shape}{' in Fortran order' * header.fortran}"
        )
    return header.offset


def _load_corrupted(
    paths: dict[str, Path],
    offsets: dict[str, int],
    labels: NDArray[np.int64],
    name: str,
    severity: int,
) -> ImageSet:
    images = len(labels)
    offset = offsets[name] + (severity - 1) * images * _VALUES
    reader = MappedReader(paths[name], offset, (images, _SIDE, _SIDE, 3))
    return ImageSet(reader, labels, classes=CLASSES)
