"""Running a model for its own sake, and leaving it as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Put every module of ``model``, if it is one, in eval mode for a while."""
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    was_training = [module.training for module in modules]
    # Not by eval() and train(): a module may have its own, which does more than to set a mode.
    for module in modules:
        module.training = False
    try:
        yield
    finally:
        for module, mode in zip(modules, was_training):
            module.training = mode


def without_inference(x: Tensor) -> Tensor:
    """Return ``x``, or a copy that autograd may keep where inference mode made it."""
    return x.clone() if x.is_inference() else x
