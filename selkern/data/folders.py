"""Data sets recognised by the files in a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from selkern.data import _files, cifar10, mnist, tiny_imagenet
from selkern.data.corrupted import PUBLISHED, CorruptedSets
from selkern.data.digits import load_digits
from selkern.data.images import Splits

__all__ = ["load_corrupted", "load_images"]

DIGITS = "digits"


class _Layout(NamedTuple):
    """A published layout: what is looked for, where else, and what loads it."""

    files: str
    inner: str
    is_here: Callable[[Path], bool]
    load: Callable[[Path], Any]


def load_images(source: str | os.PathLike[str]) -> Splits:
    """Load labelled images: the bundled digits, or a data set that the user has.

    Parameters
    ----------
    source : str or path
        ``"digits"`` for :func:`load_digits`, or a folder of :func:`load_mnist`,
        :func:`load_cifar10` or :func:`load_tiny_imagenet`, which is recognised by its files.

    Returns
    -------
    Splits
        ``train`` and ``test``.

    Raises
    ------
    TypeError
        If ``source`` is not a path.
    FileNotFoundError
        If there is no such folder, or the files are not complete.
    ValueError
        If the folder has the files of no published layout, or of more than one, or a file is
        refused.

    Examples
    --------
    >>> load_images("digits").train
    ImageSet(1347 images of 1 x 8 x 8 in 10 classes)
    """
    if source == DIGITS:
        return load_digits()
    return _recognised("source", source, _IMAGES)


def load_corrupted(folder: str | os.PathLike[str]) -> CorruptedSets:
    """Open published corrupted images.

    Parameters
    ----------
    folder : str or path
        A folder of :func:`load_cifar10_c` or :func:`load_tiny_imagenet_c`, which is recognised by
        its files.

    Returns
    -------
    CorruptedSets
        The image sets by corruption and severity.

    Raises
    ------
    TypeError, FileNotFoundError, ValueError
        As :func:`load_images` does.

    Examples
    --------
    >>> corrupted = load_corrupted("data/CIFAR-10-C")  # doctest: +SKIP
    >>> corrupted.load("fog", severity=5)  # doctest: +SKIP
    ImageSet(10000 images of 3 x 32 x 32 in 10 classes)
    """
    return _recognised("folder", folder, _CORRUPTED)


def _recognised(name: str, value: Any, layouts: Mapping[str, _Layout]) -> Any:
    where = _files.folder(name, value)
    found = [title for title, layout in layouts.items() if _is_in(where, layout)]
    if len(found) == 1:
        return layouts[found[0]].load(where)
    looked_for = "; ".join(f"{title}: {layout.files}" for title, layout in layouts.items())
    got = f"those of {' and '.join(found)}" if found else "none of them"
    raise ValueError(
        f"{name} must hold the files of one data set ({looked_for}), got {got} in {where}"
    )


def _is_in(where: Path, layout: _Layout) -> bool:
    return any(place.is_dir() and layout.is_here(place) for place in (where, where / layout.inner))


def _has_any(*names: str) -> Callable[[Path], bool]:
    return lambda where: any((where / name).exists() for name in names)


_IMAGES = {
    "MNIST": _Layout(
        "train-images-idx3-ubyte[.gz]", mnist.INNER, _has_any(*mnist.FILES), mnist.load_mnist
    ),
    "CIFAR-10": _Layout(
        "data_batch_1 to data_batch_5, test_batch",
        cifar10.INNER,
        _has_any(*cifar10.FILES),
        cifar10.load_cifar10,
    ),
    "Tiny ImageNet": _Layout(
        "wnids.txt, train, val",
        tiny_imagenet.INNER,
        _has_any(tiny_imagenet.FILES[0]),
        tiny_imagenet.load_tiny_imagenet,
    ),
}
_CORRUPTED = {
    "CIFAR-10-C": _Layout(
        "labels.npy, <corruption>.npy",
        cifar10.CORRUPTED_INNER,
        _has_any(cifar10.CORRUPTED_LABELS, *(f"{name}.npy" for name in PUBLISHED)),
        cifar10.load_cifar10_c,
    ),
    "Tiny ImageNet-C": _Layout(
        "<corruption>/<1 to 5>/<wnid>/*.JPEG",
        tiny_imagenet.CORRUPTED_INNER,
        lambda where: bool(tiny_imagenet.corruptions_in(where)),
        tiny_imagenet.load_tiny_imagenet_c,
    ),
}
