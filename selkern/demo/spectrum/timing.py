"""Time of a training step: without the regularizer, with selkern's and with plain PyTorch's."""

from __future__ import annotations

import copy
from collections.abc import Callable

from torch import nn

import selkern
from selkern._benchmarks.clocks import nanoseconds_on
from selkern._benchmarks.compare import Comparison, interleave
from selkern.demo.data import Images
from selkern.demo.spectrum.plain import PlainRegularizer
from selkern.demo.spectrum.train import Recipe, make_optimizer
from selkern.demo.training import Term, train_step

__all__ = ["STEPS", "time_steps"]

STEPS = {
    "plain": "without the regularizer",
    "exact": "exact, selkern",
    "exact in PyTorch": "exact, PyTorch",
    "frozen": "frozen basis, selkern",
    "published": "frozen basis, PyTorch, vectorised",
    "published, one by one": "frozen basis, PyTorch, one eigenvalue after the other, as published",
}
PLAIN = {
    "exact in PyTorch": "exact",
    "published": "published",
    "published, one by one": "published, one by one",
}
"""The kinds of :class:`PlainRegularizer`."""


def time_steps(model: nn.Module, images: Images, recipe: Recipe, rounds: int) -> Comparison:
    """Time each kind of step on a batch, taken in turn.

    Every kind trains a copy of the network further. Bases are found before the first step, once.
    """
    steps = {name: _make_step(copy.deepcopy(model), images, recipe, name) for name in STEPS}
    nanoseconds_of = nanoseconds_on(images.images.device)
    return interleave(steps, rounds=rounds, nanoseconds_of=nanoseconds_of)


def _make_step(model: nn.Module, images: Images, recipe: Recipe, kind: str) -> Callable[[], object]:
    optimizer = make_optimizer(model, recipe)
    batch = next(images.batches(recipe.batch_size))
    regularizer = _regularizer(model, images, recipe, kind)
    return lambda: train_step(model, optimizer, batch, regularizer)


def _regularizer(model: nn.Module, images: Images, recipe: Recipe, kind: str) -> Term | None:
    if kind == "plain":
        return None
    if kind in PLAIN:
        regularizer = PlainRegularizer(model, recipe.beta, PLAIN[kind])
        regularizer.refresh(images)
        return regularizer
    fused = selkern.SpectralRegularizer(model, beta=recipe.beta, mode=kind)
    if kind == "frozen":
        fused.refresh([(images.images, images.labels)])
    return fused
