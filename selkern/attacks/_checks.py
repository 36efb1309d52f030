"""Refusals of the attacks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from selkern import _checks

NORMS = ("linf", "l2")
IGNORED = -100


def norm(value: Any) -> str:
    """Return the name of a norm."""
    return _checks.one_of("norm", value, NORMS)


def radius(value: Any) -> float:
    """Return ``eps``, finite and at least zero."""
    return _checks.epsilon(value)


def step_size(value: Any) -> float:
    """Return ``alpha``, finite; below zero a step descends."""
    number = _checks.real("alpha", value)
    if not -math.inf < number < math.inf:
        raise ValueError(f"alpha must be finite, got {value}")
    return number


def bounds(value: Any) -> tuple[float, float]:
    """Return the lowest and the highest value of an image."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise TypeError(f"bounds must be a pair of real numbers, got {value!r}")
    if any(isinstance(bound, (list, tuple, Tensor)) for bound in value):
        raise TypeError(f"bounds must be a pair of real numbers for all channels, got {value!r}")
    low, high = (_checks.real("bounds", bound) for bound in value)
    if not low < high:
        raise ValueError(f"bounds must be the lower and then the higher one, got {value}")
    return low, high


def within_width(eps: float, norm: str, bounds: tuple[float, float]) -> None:
    """Refuse an ``eps`` that is larger than any change within the bounds, as of other units."""
    width = bounds[1] - bounds[0]
    if norm == "linf" and eps > width and not math.isclose(eps, width):
        raise ValueError(
            f"eps must be at most the width of bounds, {width:g}, got {eps:g}: is it {eps:g}/255?"
        )


def like_adv(name: str, x: Any, adv: Tensor) -> None:
    """Refuse a tensor that is not of the shape, dtype and device of ``adv``."""
    _checks.floating(name, x)
    if x.dtype != adv.dtype:
        raise TypeError(
            f"{name} must be {_checks.short(adv.dtype)} like adv, got {_checks.short(x.dtype)}"
        )
    if x.shape != adv.shape:
        raise ValueError(f"{name} must have shape {list(adv.shape)} like adv, got {list(x.shape)}")
    _checks.same_device(name, x, adv.device, "adv")


def images(value: Any, bounds: tuple[float, float]) -> None:
    """Refuse anything but a batch of images within ``bounds``, as far as that can be seen.

    Looking at the values on CUDA means waiting, and is left to SELKERN_CHECK=1.
    """
    _checks.activation("images", value)
    if value.numel() == 0 or not _checks.may_look_at(value):
        return
    low, high = bounds
    lowest, highest = (float(extreme) for extreme in torch.aminmax(value.detach()))
    # Bounds of images that were scaled are rounded like the images.
    largest = max([abs(bound) for bound in bounds if math.isfinite(bound)], default=0.0)
    slack = 8 * torch.finfo(value.dtype).eps * largest
    if not (low - slack <= lowest and highest <= high + slack):
        raise ValueError(
            f"images must be within bounds, {low:g} to {high:g}, got {lowest:g} to {highest:g}:"
            " put a normalisation into the model, or pass bounds="
        )


def function(name: str, value: Any) -> Any:
    """Return ``value``, which can be called."""
    if not callable(value):
        raise TypeError(f"{name} must be callable, got {type(value).__name__}")
    return value


def length(value: Any) -> float:
    """Return the ``alpha`` of an attack, which does not go backwards."""
    number = step_size(value)
    if number < 0:
        raise ValueError(f"alpha must be at least 0, got {value}: targeted=True descends")
    return number


def steps(value: Any) -> int:
    """Return a number of steps of at least zero."""
    count = _checks.integer("steps", value)
    if count < 0:
        raise ValueError(f"steps must be at least 0, got {count}")
    return count


def switch(name: str, value: Any) -> bool:
    """Return ``value``, True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, got {type(value).__name__}")
    return value


def labels(value: Any, images: Tensor, *, classes: bool) -> None:
    """Refuse labels that do not have a row for each image, or are no classes where they must be."""
    if classes:
        return _checks.labels(value, images.shape[0], images.device, "the images")
    if not isinstance(value, Tensor):
        raise TypeError(f"labels must be a torch.Tensor, got {type(value).__name__}")
    if value.dim() == 0 or value.shape[0] != images.shape[0]:
        raise ValueError(
            f"labels must have {images.shape[0]} rows like images, got shape {list(value.shape)}"
        )
    _checks.same_device("labels", value, images.device, "the images")


def classes(labels: Tensor, logits: Any) -> Tensor:
    """Return labels of logits ``[N, K]`` for a loss: int64, and -100 where they are no class.

    That is refused where it is seen.
    """
    if not isinstance(logits, Tensor):
        raise TypeError(f"model must return logits, a torch.Tensor, got {type(logits).__name__}")
    samples = labels.shape[0]
    if logits.dim() != 2 or logits.shape[0] != samples:
        raise ValueError(f"model must return logits [{samples}, K], got shape {list(logits.shape)}")
    is_class = (labels >= 0) & (labels < logits.shape[1])
    targets = labels.long().where(is_class, IGNORED)
    wrong = targets != labels
    if _checks.may_look_at(labels) and bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"labels must be {IGNORED} or in [0, {logits.shape[1]}),"
            f" got {int(labels[row])} in row {row}"
        )
    return targets


def loss(value: Any) -> None:
    """Refuse anything but a scalar."""
    if not isinstance(value, Tensor):
        raise TypeError(f"loss must return a torch.Tensor, got {type(value).__name__}")
    if value.dim() != 0:
        raise ValueError(f"loss must return a scalar, got shape {list(value.shape)}")
