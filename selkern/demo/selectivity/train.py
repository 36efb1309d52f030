"""Train with the fused regularizer, and compare it with plain PyTorch on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

import selkern
from selkern._outputs import LayerOutputs, layers_of_kind
from selkern.demo import training
from selkern.demo.agreement import accepted
from selkern.demo.data import NUM_CLASSES, Images
from selkern.study.selectivity.networks import DigitsNet

__all__ = ["Recipe", "Training", "make_optimizer", "train"]

TOLERANCE = 1e-5


@dataclass(frozen=True)
class Recipe(training.Recipe):
    """How the network is trained; losses are compared in every so many steps."""

    epochs: int = 30
    batch_size: int = 128
    learning_rate: float = 0.05
    compare_every: int = 20


@dataclass(frozen=True)
class Training(training.Training):
    """A network trained at one strength of the regularizer."""

    alpha: float
    final_loss: float


def train(
    alpha: float,
    images: Images,
    recipe: Recipe,
    after_step: Callable[[float], object] = lambda loss: None,
) -> Training:
    """Train a network from the recipe's seed.

    Parameters
    ----------
    alpha : float
        Strength of the regularizer; a positive one raises selectivity.
    images : Images
        The images to train on, on the device to train on.
    recipe : Recipe
        How to train.
    after_step : callable, optional
        Called with the loss after every step.

    Raises
    ------
    LossesDisagree
        If a loss of plain PyTorch on the same activations differs by more than 1e-5.
    """
    torch.manual_seed(recipe.seed)
    model = DigitsNet(NUM_CLASSES).to(images.images.device)
    optimizer = make_optimizer(model, recipe)
    order = torch.Generator().manual_seed(recipe.seed)
    differences: list[float] = []
    loss = float("nan")
    with (
        selkern.SelectivityRegularizer(model, NUM_CLASSES, alpha=alpha) as regularizer,
        LayerOutputs(layers_of_kind(model, nn.ReLU)) as outputs,
    ):
        step = 0
        for _ in range(recipe.epochs):
            for batch in images.shuffled_batches(recipe.batch_size, order):
                outputs.recording = step % recipe.compare_every == 0
                term = partial(regularizer, batch.labels)
                terms = training.train_step(model, optimizer, batch, term)
                if outputs.recording:
                    difference = _difference(terms[1], regularizer, outputs.maps, batch.labels)
                    where = f"alpha = {alpha:g}, step {step}"
                    differences.append(accepted(difference, TOLERANCE, where))
                loss = float(sum(terms))
                after_step(loss)
                step += 1
    return Training(model, len(differences), max(differences, default=0.0), alpha, loss)


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Make the optimizer of the recipe."""
    return torch.optim.SGD(
        model.parameters(), lr=recipe.learning_rate, momentum=0.9, weight_decay=1e-4
    )


def _difference(
    term: Tensor,
    regularizer: selkern.SelectivityRegularizer,
    maps: dict[str, Tensor],
    labels: Tensor,
) -> float:
    """Distance of the term, and of the mean index behind it, from plain PyTorch."""
    index = selkern.reference.mean_selectivity(list(maps.values()), labels, NUM_CLASSES)
    # With alpha = 0 only the index says something.
    fused = torch.stack(list(regularizer.index.values())).mean()
    of_term = abs(float(term + regularizer.alpha * index))
    return max(of_term, abs(float(fused - index)))
