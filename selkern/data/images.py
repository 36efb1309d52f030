"""Labelled images that are read when they are asked for."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeGuard, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from selkern import _checks
from selkern.data._readers import ArrayReader, PixelReader

__all__ = ["ImageSet", "Splits"]

Rows: TypeAlias = "slice | range | list[int] | list[bool] | Tensor | NDArray[Any]"
Device: TypeAlias = "torch.device | str | None"


class Splits(NamedTuple):
    """The two parts of a data set, with the same classes and the same shape of images."""

    train: ImageSet
    """What to train on."""
    test: ImageSet
    """What to test on."""


class ImageSet(Dataset[tuple[Tensor, int]]):
    r"""Labelled images, as a map-style data set whose images are read when they are asked for.

    An image is given as :math:`x = p / b`, float32 in [0, 1], where :math:`p` are its pixels and
    :math:`b` the value of the brightest. ``images[i]`` is ``(image [C, H, W], label)``;
    ``images[rows]`` is ``(images [n, C, H, W], labels [n])``, for rows given as a slice, a range, a
    list, a tensor or an array of integers, or a mask of ``N`` bools. Negative rows count from the
    end. It serves ``torch.utils.data.DataLoader`` as it stands.

    Parameters
    ----------
    pixels : array, Tensor or object
        uint8 ``[N, H, W]`` or ``[N, H, W, C]`` on the CPU, memory-mapped or not, which is never
        copied. Or any object with a length, an ``image_shape`` ``(H, W, C)`` and a method
        ``read(rows)`` that returns uint8 ``[n, H, W, C]`` for int64 ``rows``.
    labels : Tensor, array or sequence of int
        ``[N]``, the class of each image.
    classes : sequence of str, optional
        Names of the classes; by default the numbers up to the largest label.
    brightest : int, default 255
        The pixel value :math:`b` that becomes 1.

    Attributes
    ----------
    labels : Tensor
        int64 ``[N]``.
    classes : tuple of str
        Names of the classes.

    Raises
    ------
    TypeError
        If ``pixels`` is none of these or not uint8, or another argument is of the wrong kind.
    ValueError
        If ``pixels`` has another number of axes or no pixel in an image, there is not a label for
        each image, a label is not that of a class, or ``brightest`` is not in 1 to 255. On reading,
        if a pixel is brighter than the brightest.

    Examples
    --------
    >>> pixels = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
    >>> images = ImageSet(pixels, [0, 1, 1, 0], classes=["cat", "dog"])
    >>> images
    ImageSet(4 images of 1 x 2 x 3 in 2 classes)
    >>> some, labels = images[[1, -1]]
    >>> some.shape, labels
    (torch.Size([2, 1, 2, 3]), tensor([1, 0]))
    """

    labels: Tensor
    classes: tuple[str, ...]

    def __init__(
        self,
        pixels: NDArray[np.uint8] | Tensor | PixelReader,
        labels: Tensor | NDArray[Any] | Sequence[int],
        *,
        classes: Sequence[str] | None = None,
        brightest: int = 255,
    ) -> None:
        self._reader = _reader(pixels)
        self._rows = np.arange(len(self._reader))
        self._brightest = _checks.integer("brightest", brightest)
        if not 1 <= self._brightest <= 255:
            raise ValueError(f"brightest must be in 1 to 255, got {brightest}")
        numbers = _label_numbers(labels, len(self._reader))
        if classes is None:
            classes = [str(label) for label in range(int(numbers.max(initial=-1)) + 1)]
        self.classes = _class_names(classes)
        if numbers.max(initial=-1) >= len(self.classes):
            raise ValueError(
                f"labels must be below {len(self.classes)}, the number of classes, "
                f"got {numbers.max()}"
            )
        self.labels = torch.from_numpy(numbers)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape ``(C, H, W)`` of an image."""
        height, width, channels = self._reader.image_shape
        return channels, height, width

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        shape = " x ".join(str(length) for length in self.image_shape)
        return f"ImageSet({len(self)} images of {shape} in {self.num_classes} classes)"

    @overload
    def __getitem__(self, index: int) -> tuple[Tensor, int]: ...

    @overload
    def __getitem__(self, index: Rows) -> tuple[Tensor, Tensor]: ...

    def __getitem__(self, index: int | Rows) -> tuple[Tensor, int | Tensor]:
        if _is_several(index):
            positions = self._positions(index)
            return self._read(positions, None), self.labels[torch.from_numpy(positions)]
        row = _checks.integer("index", index)
        if not -len(self) <= row < len(self):
            raise IndexError(f"index must be a row of {len(self)} images, got {row}")
        return self._read(np.array([row % len(self)]), None)[0], int(self.labels[row])

    def __getitems__(self, rows: list[int]) -> list[tuple[Tensor, int]]:
        """Read the rows of a ``DataLoader``'s batch together."""
        images, labels = self[rows]
        return list(zip(images, labels.tolist()))

    def subset(self, rows: Rows) -> ImageSet:
        """Return some of the images, without reading any.

        Parameters
        ----------
        rows : slice, range, list, Tensor or array
            What ``images[rows]`` takes.

        Returns
        -------
        ImageSet
            The images and labels of these rows, in this order, with the same classes.
        """
        if not _is_several(rows):
            raise TypeError(f"rows must be a slice or several rows, got {type(rows).__name__}")
        positions = self._positions(rows)
        chosen = copy.copy(self)
        chosen._rows = self._rows[positions]
        chosen.labels = self.labels[torch.from_numpy(positions)]
        return chosen

    def batches(
        self,
        size: int,
        *,
        generator: torch.Generator | None = None,
        drop_last: bool = False,
        device: Device = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Return an iterator over batches, once through all images.

        Parameters
        ----------
        size : int
            Number of images in a batch.
        generator : torch.Generator, optional
            What draws the order, at this call. Without one, images come in their own order.
        drop_last : bool, default False
            Whether to leave out a last batch that is smaller than the others.
        device : torch.device or str, optional
            Where to put images and labels; pixels travel as uint8. The CPU by default.

        Returns
        -------
        iterator of (Tensor, Tensor)
            Images, float32 ``[n, C, H, W]``, and labels, int64 ``[n]``.
        """
        size = _checks.integer("size", size)
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        generator = _checks.generator(generator)
        if generator is None:
            order = torch.arange(len(self))
        else:
            order = torch.randperm(len(self), generator=generator, device=generator.device).cpu()
        if drop_last:
            order = order[: len(order) // size * size]
        starts = range(0, len(order), size)
        parts = (order[start : start + size] for start in starts)
        return ((self._read(part.numpy(), device), self.labels[part].to(device)) for part in parts)

    def tensors(self, device: Device = None) -> tuple[Tensor, Tensor]:
        """Return all images and labels.

        Parameters
        ----------
        device : torch.device or str, optional
            Where to put them; the CPU by default.

        Returns
        -------
        (Tensor, Tensor)
            Images, float32 ``[N, C, H, W]``, and labels, int64 ``[N]``.
        """
        return self._read(np.arange(len(self)), device), self.labels.to(device, copy=True)

    def _positions(self, index: Rows) -> NDArray[np.int64]:
        """Return what is asked for as rows of this set, none of them negative."""
        if isinstance(index, slice):
            return np.arange(*index.indices(len(self)))
        wanted = index.detach().cpu().numpy() if isinstance(index, Tensor) else np.asarray(index)
        if wanted.dtype == np.bool_:
            if wanted.shape != (len(self),):
                raise IndexError(
                    f"index must have shape [{len(self)}] where it is a mask, "
                    f"got {list(wanted.shape)}"
                )
            return np.flatnonzero(wanted)
        if wanted.size and wanted.dtype.kind != "i":
            raise TypeError(f"index must hold signed integers or bools, got {wanted.dtype.name}")
        if wanted.ndim != 1:
            raise IndexError(f"index must have 1 axis, got shape {list(wanted.shape)}")
        rows = wanted.astype(np.int64)
        outside = rows[(rows < -len(self)) | (rows >= len(self))]
        if len(outside):
            raise IndexError(f"index must hold rows of {len(self)} images, got {outside[0]}")
        return np.where(rows < 0, rows + len(self), rows)

    def _read(self, positions: NDArray[np.int64], device: Device) -> Tensor:
        pixels = self._reader.read(self._rows[positions])
        expected = (len(positions), *self._reader.image_shape)
        if pixels.dtype != np.uint8 or pixels.shape != expected:
            raise ValueError(
                f"pixels must be read as uint8 of shape {expected}, "
                f"got {pixels.dtype.name} of shape {pixels.shape}"
            )
        if self._brightest < 255 and pixels.max(initial=0) > self._brightest:
            raise ValueError(
                f"pixels must be at most brightest = {self._brightest}, got {pixels.max()}"
            )
        images = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2)
        images = images.to(torch.float32, memory_format=torch.contiguous_format)
        return images.div_(self._brightest)


def _is_several(index: Any) -> TypeGuard[Rows]:
    if isinstance(index, (Tensor, np.ndarray)):
        return index.ndim > 0
    return isinstance(index, (slice, range, list))


def _reader(pixels: Any) -> PixelReader:
    if isinstance(pixels, Tensor):
        if pixels.device.type != "cpu":
            raise ValueError(f"pixels must be on the CPU, got {pixels.device}")
        pixels = pixels.numpy() if pixels.dtype == torch.uint8 else _refuse_dtype(pixels.dtype)
    if isinstance(pixels, np.ndarray):
        if pixels.dtype != np.uint8:
            _refuse_dtype(pixels.dtype)
        if pixels.ndim not in (3, 4) or 0 in pixels.shape[1:]:
            raise ValueError(
                "pixels must have shape [N, H, W] or [N, H, W, C] with at least one pixel an "
                f"image, got {list(pixels.shape)}"
            )
        return ArrayReader(np.asarray(pixels))
    if not isinstance(pixels, PixelReader):
        raise TypeError(
            "pixels must be a numpy.ndarray, a torch.Tensor or an object with a length, an "
            f"image_shape and read, got {type(pixels).__name__}"
        )
    return pixels


def _refuse_dtype(dtype: Any) -> Any:
    raise TypeError(f"pixels must be uint8, got {str(dtype).removeprefix('torch.')}")


def _label_numbers(labels: Any, images: int) -> NDArray[np.int64]:
    if isinstance(labels, str) or not isinstance(labels, (Tensor, np.ndarray, Sequence)):
        raise TypeError(
            f"labels must be a tensor, an array or a sequence of int, got {type(labels).__name__}"
        )
    numbers = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.array(labels)
    if numbers.size and numbers.dtype.kind not in "iu":
        raise TypeError(f"labels must be integers, got {numbers.dtype.name}")
    if numbers.shape != (images,):
        raise ValueError(
            f"labels must have shape [{images}], one for each image, got {list(numbers.shape)}"
        )
    if numbers.size and not 0 <= numbers.min() <= numbers.max() < 2**63:
        raise ValueError(f"labels must be at least 0 and fit 64 bits, got {numbers.tolist()[:8]}")
    return numbers.astype(np.int64)


def _class_names(classes: Any) -> tuple[str, ...]:
    if isinstance(classes, str) or not isinstance(classes, Sequence):
        raise TypeError(f"classes must be a sequence of str, got {type(classes).__name__}")
    for name in classes:
        if not isinstance(name, str):
            raise TypeError(f"classes must hold str, got {type(name).__name__}")
    return tuple(classes)
