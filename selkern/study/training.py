"""Training that goes on where it was stopped."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selkern.data import ImageSet
from selkern.study.base import Cell, Tick
from selkern.study.folder import Folder
from selkern.study.measures import accuracy

__all__ = ["Objective", "Recipe", "Trained", "Trainer"]

SECONDS_BETWEEN_CHECKPOINTS = 30.0

State = dict[str, Any]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained."""

    epochs: int
    batch_size: int
    learning_rate: float
    optimizer: Literal["sgd", "adam"] = "sgd"
    """SGD with momentum 0.9 and weight decay 1e-4, or Adam with amsgrad and no weight decay."""
    milestones: tuple[int, ...] = ()
    """Epochs, counted from 0, from which the learning rate is a tenth of what it was."""
    drops_last: bool = False
    """Whether a last batch that is short is left out."""

    def make_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of a network."""
        if self.optimizer == "adam":
            return torch.optim.Adam(model.parameters(), lr=self.learning_rate, amsgrad=True)
        return torch.optim.SGD(
            model.parameters(), lr=self.learning_rate, momentum=0.9, weight_decay=1e-4
        )

    def learning_rate_in(self, epoch: int) -> float:
        """Learning rate in an epoch, counted from 0."""
        past = sum(milestone <= epoch for milestone in self.milestones)
        return self.learning_rate * 0.1**past


class Objective:
    """Cross entropy; studies add their regularizers.

    Parameters
    ----------
    model : nn.Module
        The network to train.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def begin_epoch(self, images: ImageSet, generator: torch.Generator) -> None:
        """Called before each epoch with the training images and the training's generator."""

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Loss of a batch."""
        return F.cross_entropy(self.model(images), labels)


@dataclass(frozen=True)
class Trained:
    """What became of a training."""

    epoch: int
    """The epoch after which the network was kept, counted from 1."""
    validation_accuracy: float | None
    """None where nothing was held out: the network of the last epoch is kept."""
    loss: float
    """Mean over the batches of the last epoch."""


class Trainer:
    """Trains a network epoch by epoch.

    Everything that decides how it goes on is in a checkpoint, so that a training which was killed
    gives the same network as one that was not.

    Parameters
    ----------
    model : nn.Module
        The network, on its device.
    objective : Objective
        Its loss.
    recipe : Recipe
        How to train.
    seed : int
        Of the order of the images and of what the objective draws.
    device : torch.device
        Where the network is.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        recipe: Recipe,
        seed: int,
        device: torch.device,
    ) -> None:
        self.model = model
        self.objective = objective
        self.recipe = recipe
        self.device = device
        self.optimizer = recipe.make_optimizer(model)
        self.generator = torch.Generator().manual_seed(seed)
        self.epoch = 0
        self.loss = math.nan
        self.best: State | None = None

    def run(
        self,
        images: ImageSet,
        validation: ImageSet | None,
        folder: Folder,
        cell: Cell,
        tick: Tick = lambda steps: None,
        clock: Callable[[], float] = monotonic,
    ) -> Trained:
        """Train to the end, from the cell's checkpoint where there is one.

        The network is left, and kept as the cell's state "network", as it was after the epoch with
        the best validation accuracy, the first of equals, or after the last one without validation.
        """
        checkpoint = folder.load(cell.name, "checkpoint", self.device)
        if checkpoint is not None:
            self._restore(checkpoint)
            tick(self.epoch)
        saved = clock()
        while self.epoch < self.recipe.epochs:
            self._run_epoch(images)
            if validation is not None:
                self._keep_if_best(validation)
            if clock() - saved >= SECONDS_BETWEEN_CHECKPOINTS:
                folder.save(cell.name, "checkpoint", self._state())
                saved = clock()
            tick(1)
        trained = Trained(self.epoch, None, self.loss)
        if self.best is not None:
            self.model.load_state_dict(self.best["model"])
            trained = Trained(self.best["epoch"], self.best["accuracy"], self.loss)
        folder.save(cell.name, "network", self.model.state_dict())
        return trained

    def _run_epoch(self, images: ImageSet) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate_in(self.epoch)
        self.objective.begin_epoch(images, self.generator)
        self.model.train()
        losses = []
        batches = images.batches(
            self.recipe.batch_size,
            generator=self.generator,
            drop_last=self.recipe.drops_last,
            device=self.device,
        )
        for batch, labels in batches:
            loss = self.objective(batch, labels)
            self.optimizer.zero_grad()
            torch.autograd.backward(loss)
            self.optimizer.step()
            losses.append(loss.detach())
        self.loss = float(torch.stack(losses).mean())
        self.epoch += 1
        if not math.isfinite(self.loss):
            raise ArithmeticError(f"the loss is {self.loss} in epoch {self.epoch}")

    def _keep_if_best(self, validation: ImageSet) -> None:
        share = accuracy(self.model, validation.batches(self.recipe.batch_size, device=self.device))
        if self.best is None or share > self.best["accuracy"]:
            model = {name: value.clone() for name, value in self.model.state_dict().items()}
            self.best = {"model": model, "epoch": self.epoch, "accuracy": share}

    def _state(self) -> State:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "epoch": self.epoch,
            "loss": self.loss,
            "best": self.best,
        }

    def _restore(self, state: State) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"].cpu())
        self.epoch, self.loss, self.best = state["epoch"], state["loss"], state["best"]
