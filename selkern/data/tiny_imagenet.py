"""Tiny ImageNet and Tiny ImageNet-C in their published folders of JPEG files."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from selkern.data import _files
from selkern.data._packages import needed
from selkern.data._readers import JpegReader
from selkern.data.corrupted import SEVERITIES, CorruptedSets, in_the_order_of_the_field
from selkern.data.images import ImageSet, Splits

__all__ = ["load_tiny_imagenet", "load_tiny_imagenet_c"]

FILES = ("wnids.txt", "train", "val")
INNER = "tiny-imagenet-200"
CORRUPTED_INNER = "Tiny-ImageNet-C"

_SIDE = 64
_WNID = re.compile(r"n\d{8}", re.ASCII)
_SUFFIXES = (".jpeg", ".jpg")


def load_tiny_imagenet(folder: str | os.PathLike[str]) -> Splits:
    """Load Tiny ImageNet from its published folders.

    ``wnids.txt`` lists the classes; their order is that of the sorted names. Training images are
    ``train/<wnid>/images/*.JPEG``, in the order of their classes and names. Test images are the
    published validation set, whose labels are known: ``val/images/*.JPEG`` in the order of
    ``val/val_annotations.txt``; or, where that set was sorted into ``val/<wnid>/*.JPEG`` or
    ``val/<wnid>/images/*.JPEG``, in the order of classes and names. Files are decoded when they are
    asked for, gray ones to three channels. It needs Pillow.

    Parameters
    ----------
    folder : str or path
        The folder ``tiny-imagenet-200``, or the one that holds it.

    Returns
    -------
    Splits
        ``train`` and ``test``: 100,000 and 10,000 images ``[3, 64, 64]`` in 200 classes.

    Raises
    ------
    TypeError
        If ``folder`` is not a path.
    FileNotFoundError
        If the folder, a class or an annotated image is missing.
    ValueError
        If a name is not that of a class, or images and annotations do not match. On reading, if a
        file is not a whole JPEG image of 64 x 64.
    ImportError
        If Pillow is not installed.

    Examples
    --------
    >>> train, test = load_tiny_imagenet("data/tiny-imagenet-200")  # doctest: +SKIP
    >>> train  # doctest: +SKIP
    ImageSet(100000 images of 3 x 64 x 64 in 200 classes)
    """
    where = _files.within(_files.folder("folder", folder), INNER, FILES)
    listed = _files.file(where / FILES[0])
    classes = _read_wnids(listed)
    train = _sorted_into_classes(_inner_folder(where, "train"), classes, listed)
    val = _inner_folder(where, "val")
    if set(_files.folders(val)) & set(classes):
        test = _sorted_into_classes(val, classes, listed, besides="images")
    else:
        test = _annotated(val, classes)
    return Splits(train, test)


def load_tiny_imagenet_c(folder: str | os.PathLike[str]) -> CorruptedSets:
    """Open Tiny ImageNet-C, Tiny ImageNet under corruptions (Hendrycks & Dietterich, 2019).

    Images are ``<corruption>/<severity>/<wnid>/*.JPEG``, in the order of their classes and names;
    the order of the classes is that of the sorted names. Compare ``classes`` with those of the
    clean images. It needs Pillow.

    Parameters
    ----------
    folder : str or path
        The folder ``Tiny-ImageNet-C``, or the one that holds it.

    Returns
    -------
    CorruptedSets
        Images ``[3, 64, 64]``. They are not paired: they were not made from the files of the
        published validation set.

    Raises
    ------
    TypeError
        If ``folder`` is not a path.
    FileNotFoundError
        If the folder, every corruption or one of its severities is missing.
    ValueError
        If a folder of classes has another name than ``n`` and 8 digits. On loading, if the classes
        are not those of the first corruption, or one has no image; on reading, if a file is not a
        whole JPEG image of 64 x 64.
    ImportError
        If Pillow is not installed.

    Examples
    --------
    >>> corrupted = load_tiny_imagenet_c("data/Tiny-ImageNet-C")  # doctest: +SKIP
    >>> corrupted.load("fog", severity=5)  # doctest: +SKIP
    ImageSet(10000 images of 3 x 64 x 64 in 200 classes)
    """
    needed("PIL.Image", "load_tiny_imagenet_c")
    where = _files.folder("folder", folder)
    names = corruptions_in(where)
    if not names and (where / CORRUPTED_INNER).is_dir():
        where = where / CORRUPTED_INNER
        names = corruptions_in(where)
    if not names:
        raise FileNotFoundError(f"{where} must hold <corruption>/1 to <corruption>/5, got none")
    for name in names:
        for severity in SEVERITIES:
            _inner_folder(where, f"{name}/{severity}")
    first = where / names[0] / str(SEVERITIES[0])
    classes = tuple(_wnid(first, wnid) for wnid in _files.folders(first))
    if not classes:
        raise ValueError(f"{first} must hold a folder for each class, got none")
    return CorruptedSets(
        names, classes, partial(_load_corrupted, where, classes, first), is_paired=False
    )


def corruptions_in(where: Path) -> tuple[str, ...]:
    """Return the corruptions whose folders of severities a folder holds."""
    names = (n for n in _files.folders(where) if (where / n / str(SEVERITIES[0])).is_dir())
    return in_the_order_of_the_field(names)


def _load_corrupted(
    where: Path, classes: tuple[str, ...], listed: Path, name: str, severity: int
) -> ImageSet:
    return _sorted_into_classes(where / name / str(severity), classes, listed)


def _sorted_into_classes(
    parent: Path, classes: tuple[str, ...], listed: Path, besides: str | None = None
) -> ImageSet:
    """Images of a folder with a folder for each class."""
    paths: list[str] = []
    labels: list[int] = []
    for unknown in sorted(set(_files.folders(parent)) - set(classes) - {besides}):
        raise ValueError(f"{parent} must hold folders of the classes in {listed}, got {unknown}")
    for label, wnid in enumerate(classes):
        folder = _inner_folder(parent, wnid)
        inner = folder / "images"
        folder = inner if inner.is_dir() else folder
        names = _jpegs(folder)
        if not names:
            raise ValueError(f"{folder} must hold JPEG files, got none")
        paths += [str(folder / name) for name in names]
        labels += [label] * len(names)
    return _image_set(paths, labels, classes)


def _annotated(val: Path, classes: tuple[str, ...]) -> ImageSet:
    """Images of the published validation set, in the order of its annotations."""
    annotations = _files.file(val / "val_annotations.txt")
    folder = _inner_folder(val, "images")
    files = frozenset(_jpegs(folder))
    left = set(files)
    numbers = {wnid: label for label, wnid in enumerate(classes)}
    paths: list[str] = []
    labels: list[int] = []
    for number, line in enumerate(_lines(annotations), 1):
        where = f"{annotations} line {number}"
        fields = line.split("\t")
        if len(fields) < 2:
            raise ValueError(f"{where} must be a file and its class, separated by a tab")
        name, wnid = fields[:2]
        if wnid not in numbers:
            raise ValueError(f"{where} must name a class of {FILES[0]}, got {wnid[:20]!r}")
        if name not in files:
            raise FileNotFoundError(f"{where} names {name[:80]!r}, which is no file in {folder}")
        if name not in left:
            raise ValueError(f"{where} must name a file not named before, got {name}")
        left.remove(name)
        paths.append(str(folder / name))
        labels.append(numbers[wnid])
    for name in sorted(left):
        raise ValueError(f"{annotations} must name every file in {folder}, but misses {name}")
    if not paths:
        raise ValueError(f"{annotations} must name images, got none")
    return _image_set(paths, labels, classes)


def _image_set(paths: Sequence[str], labels: Sequence[int], classes: tuple[str, ...]) -> ImageSet:
    return ImageSet(JpegReader(paths, _SIDE), labels, classes=classes)


def _inner_folder(parent: Path, name: str) -> Path:
    if not (parent / name).is_dir():
        raise FileNotFoundError(f"{parent} must hold the folder {name}")
    return parent / name


def _jpegs(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        names = (entry.name for entry in entries if not entry.name.startswith("."))
        return sorted(name for name in names if name.lower().endswith(_SUFFIXES))


def _read_wnids(path: Path) -> tuple[str, ...]:
    wnids = [_wnid(path, line.strip()) for line in _lines(path)]
    if not wnids:
        raise ValueError(f"{path} must name a class on each line, got none")
    if len(set(wnids)) != len(wnids):
        raise ValueError(f"{path} must name each class once, got {len(wnids)} lines")
    return tuple(sorted(wnids))


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be a text file: {_files.line(error)}") from None
    return [line for line in text.split("\n") if line.strip()]


def _wnid(where: Path, name: str) -> str:
    if not _WNID.fullmatch(name):
        raise ValueError(f"{where} must name classes as n and 8 digits, got {name[:20]!r}")
    return name
