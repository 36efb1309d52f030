"""Train with and without the 1/n regularizer, and compare it with plain PyTorch on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor, nn

import selkern
from selkern._outputs import LayerOutputs
from selkern.demo import training
from selkern.demo.agreement import accepted
from selkern.demo.data import Images
from selkern.demo.spectrum.model import hidden_layers, make_network
from selkern.demo.spectrum.plain import principal_axes

__all__ = ["MODES", "Recipe", "Training", "make_optimizer", "train"]

MODES = ("without", "exact", "frozen")
"""Without the regularizer, and with it in both of its modes."""

TOLERANCE = 1e-4
"""Of the losses, relative to the larger of 1 and the loss."""


@dataclass(frozen=True)
class Recipe(training.Recipe):
    """How the network is trained; losses are compared in every so many epochs."""

    epochs: int = 150
    # Half of the training images: more than there are units, and the frozen basis is not the
    # batch's own.
    batch_size: int = 673
    learning_rate: float = 2e-3
    compare_every: int = 10
    width: int = 128
    beta: float = 2.0


@dataclass(frozen=True)
class Training(training.Training):
    """A network trained in one of the modes."""

    mode: str
    seconds: float


def train(
    mode: str,
    images: Images,
    recipe: Recipe,
    after_step: Callable[[float], object] = lambda loss: None,
) -> Training:
    """Train a network from the recipe's seed.

    Parameters
    ----------
    mode : {"without", "exact", "frozen"}
        Whether, and from which eigenvalues, the regularizer is taken. A frozen basis is found anew
        in every epoch.
    images : Images
        The images to train on, on the device to train on.
    recipe : Recipe
        How to train.
    after_step : callable, optional
        Called with the loss after every step.

    Raises
    ------
    LossesDisagree
        If a loss of plain PyTorch on the same activations differs by more than 1e-4.
    """
    torch.manual_seed(recipe.seed)
    model = make_network(recipe.width).to(images.images.device)
    optimizer = make_optimizer(model, recipe)
    order = torch.Generator().manual_seed(recipe.seed)
    differences: list[float] = []
    start = perf_counter()
    with ExitStack() as stack:
        regularizer = None
        if mode != "without":
            regularizer = selkern.SpectralRegularizer(model, beta=recipe.beta, mode=mode)
            stack.enter_context(regularizer)
        outputs = stack.enter_context(LayerOutputs(hidden_layers(model), recording=False))
        for epoch in range(recipe.epochs):
            compared = regularizer is not None and (epoch + 1) % recipe.compare_every == 0
            basis = None
            if regularizer is not None and mode == "frozen":
                regularizer.refresh([(images.images, images.labels)])
                basis = principal_axes(model, images) if compared else None
            outputs.recording = compared
            for batch in images.shuffled_batches(recipe.batch_size, order):
                cross_entropy, term = training.train_step(model, optimizer, batch, regularizer)
                if compared:
                    difference = _difference(term, outputs.maps, basis, recipe.beta)
                    differences.append(accepted(difference, TOLERANCE, f"{mode}, epoch {epoch}"))
                after_step(float(cross_entropy + term))
    seconds = perf_counter() - start
    return Training(model, len(differences), max(differences, default=0.0), mode, seconds)


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Make the optimizer of the recipe, the paper's."""
    return torch.optim.Adam(model.parameters(), lr=recipe.learning_rate, amsgrad=True)


def _difference(
    term: Tensor, maps: Mapping[str, Tensor], basis: Sequence[Tensor] | None, beta: float
) -> float:
    """Distance of the term from plain PyTorch on the same activations."""
    expected = beta * selkern.reference.spectral_loss(list(maps.values()), basis=basis)
    return abs(float(term - expected)) / max(1.0, float(expected))
