"""Train with the fused regularizer, and compare it with plain PyTorch on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import selkern
from selkern.demo.agreement import accepted
from selkern.demo.data import NUM_CLASSES, Images
from selkern.demo.outputs import LayerOutputs, layers_of_kind
from selkern.demo.selectivity.model import DigitsNet

__all__ = ["Recipe", "Training", "make_optimizer", "train", "train_step"]

Regularizer = Callable[[Tensor], Tensor]

TOLERANCE = 1e-5


@dataclass(frozen=True)
class Recipe:
    """How the network is trained."""

    epochs: int = 30
    batch_size: int = 128
    learning_rate: float = 0.05
    seed: int = 0
    compare_every: int = 20

    def steps(self, images: Images) -> int:
        """Number of steps of a whole training."""
        return self.epochs * (len(images) // self.batch_size)


@dataclass(frozen=True)
class Training:
    """A trained network, and how far the two regularizers were apart on the way."""

    model: DigitsNet
    alpha: float
    comparisons: int
    largest_difference: float
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
        The images to train on.
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
    model = DigitsNet(NUM_CLASSES)
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
                terms = train_step(model, optimizer, batch, regularizer)
                if outputs.recording:
                    difference = _difference(terms[1], regularizer, outputs.maps, batch.labels)
                    where = f"alpha = {alpha:g}, step {step}"
                    differences.append(accepted(difference, TOLERANCE, where))
                loss = float(sum(terms))
                after_step(loss)
                step += 1
    return Training(model, alpha, len(differences), max(differences, default=0.0), loss)


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Make the optimizer of the recipe."""
    return torch.optim.SGD(
        model.parameters(), lr=recipe.learning_rate, momentum=0.9, weight_decay=1e-4
    )


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Images,
    regularizer: Regularizer | None = None,
) -> tuple[Tensor, Tensor]:
    """Take one step; returns the cross entropy and the regularizer's term."""
    cross_entropy = F.cross_entropy(model(batch.images), batch.labels)
    term = torch.zeros(()) if regularizer is None else regularizer(batch.labels)
    optimizer.zero_grad()
    torch.autograd.backward(cross_entropy if regularizer is None else cross_entropy + term)
    optimizer.step()
    return cross_entropy.detach(), term.detach()


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
