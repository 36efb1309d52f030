"""Time of a training step: plain, with selkern, and with plain PyTorch's regularizer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

from torch import nn

import selkern
from selkern._benchmarks.clocks import nanoseconds_on
from selkern._benchmarks.compare import interleave
from selkern.demo.data import NUM_CLASSES, Images
from selkern.demo.selectivity.train import Recipe, make_optimizer
from selkern.demo.timing import milliseconds
from selkern.demo.training import train_step

__all__ = ["STEPS", "time_steps"]

STEPS: dict[str, str | None] = {
    "plain": None,
    "with selkern": "selkern",
    "with PyTorch": "reference",
}
"""Backend of the regularizer in each kind of step."""


def time_steps(
    model: nn.Module, alpha: float, batch: Images, recipe: Recipe, rounds: int
) -> dict[str, dict[str, float]]:
    """Median and quartiles of each kind of step in milliseconds, taken in turn.

    Every kind trains a copy of the network further on the same batch.
    """
    steps = {
        name: _make_step(copy.deepcopy(model), alpha, batch, recipe, backend)
        for name, backend in STEPS.items()
    }
    nanoseconds_of = nanoseconds_on(batch.images.device)
    comparison = interleave(steps, rounds=rounds, nanoseconds_of=nanoseconds_of)
    return {name: milliseconds(comparison.time(name)) for name in steps}


def _make_step(
    model: nn.Module, alpha: float, batch: Images, recipe: Recipe, backend: str | None
) -> Callable[[], object]:
    optimizer = make_optimizer(model, recipe)
    term = None
    if backend is not None:
        regularizer = selkern.SelectivityRegularizer(
            model, NUM_CLASSES, alpha=alpha, backend=backend
        )
        term = partial(regularizer, batch.labels)
    return lambda: train_step(model, optimizer, batch, term)
