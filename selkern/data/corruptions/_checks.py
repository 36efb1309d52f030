"""Refusals of the corruptions."""

from __future__ import annotations

import difflib
from typing import Any

import torch
from torch import Tensor

from selkern import _checks

CHANNELS = (1, 3)
SMALLEST = 8
LEFT_OUT = {
    "glass_blur": (
        "it swaps neighbouring pixels one after another, each swap depending on those before,"
        " which no library does for tensors"
    ),
    "frost": "it lays photographs of frost over the images, which are not ours to give away",
    "snow": (
        "its flakes are one pixel wide and their streaks of one length at both published sizes,"
        " which does not tell what they should be at others"
    ),
    "spatter": (
        "it needs OpenCV's edge detector, distance transform and histogram equalisation, which"
        " work on one 8-bit image at a time"
    ),
}


def name(value: Any, known: tuple[str, ...]) -> str:
    """Return the name of a corruption."""
    if not isinstance(value, str):
        raise TypeError(f"name must be a str, got {type(value).__name__}")
    if value in LEFT_OUT:
        raise ValueError(f"name must be one of {known}, got {value!r}: {LEFT_OUT[value]}")
    if value not in known:
        close = difflib.get_close_matches(value.lower().replace(" ", "_"), known, n=1)
        guess = f": did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"name must be one of {known}, got {value!r}{guess}")
    return value


def severity(value: Any) -> int:
    """Return a severity, 1 to 5."""
    number = _checks.integer("severity", value)
    if not 1 <= number <= 5:
        raise ValueError(f"severity must be 1 to 5, got {number}")
    return number


def size(value: Any) -> int:
    """Return a number of pixels that is enough for every corruption."""
    number = _checks.integer("size", value)
    if number < SMALLEST:
        raise ValueError(f"size must be at least {SMALLEST} pixels, got {number}")
    return number


def channels(value: Any) -> int:
    """Return a number of channels, 1 for gray and 3 for colour."""
    number = _checks.integer("channels", value)
    if number not in CHANNELS:
        raise ValueError(f"channels must be 1 or 3, got {number}")
    return number


def images(value: Any) -> None:
    """Refuse anything but images ``[N, 1 or 3, H, W]`` from 0 to 1, as far as that can be seen.

    Looking at the values on CUDA means waiting, and is left to SELKERN_CHECK=1.
    """
    _checks.floating("images", value)
    shape = list(value.shape)
    if value.dim() != 4 or shape[1] not in CHANNELS:
        raise ValueError(f"images must have shape [N, 1 or 3, H, W], got {shape}")
    if min(shape[2:]) < SMALLEST:
        raise ValueError(
            f"images must be at least {SMALLEST} pixels high and wide, got {shape[2]} x {shape[3]}"
        )
    if value.numel() == 0 or not _checks.may_look_at(value):
        return
    lowest, highest = (float(extreme) for extreme in torch.aminmax(value.detach()))
    slack = 8 * torch.finfo(value.dtype).eps
    if not (-slack <= lowest and highest <= 1 + slack):
        raise ValueError(
            f"images must be from 0 to 1, got {lowest:g} to {highest:g}:"
            " put a normalisation into the model"
        )


def generator_for(value: Any, images: Tensor) -> torch.Generator | None:
    """Return ``value``, a generator that draws on the device of the images, or None."""
    drawing = _checks.generator(value)
    if drawing is not None and drawing.device.type != images.device.type:
        raise ValueError(
            f"generator must be on {images.device} like the images, got {drawing.device}"
        )
    return drawing
