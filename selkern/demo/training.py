"""What the trainings of all demos have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selkern.demo.data import Images

__all__ = ["Recipe", "Term", "Training", "train_step"]

Term = Callable[[], Tensor]
"""What a regularizer adds to the loss of the last forward."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained."""

    epochs: int
    batch_size: int
    learning_rate: float
    compare_every: int
    """Steps or epochs from one comparison with plain PyTorch to the next."""
    seed: int = 0

    def steps(self, images: Images) -> int:
        """Number of steps of a whole training."""
        return self.epochs * (len(images) // self.batch_size)


@dataclass(frozen=True)
class Training:
    """A trained network, and how far the two regularizers were apart on the way."""

    model: nn.Module
    comparisons: int
    largest_difference: float


def train_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, batch: Images, term: Term | None = None
) -> tuple[Tensor, Tensor]:
    """Take one step; returns the cross entropy and the regularizer's term."""
    cross_entropy = F.cross_entropy(model(batch.images), batch.labels)
    added = torch.zeros_like(cross_entropy) if term is None else term()
    optimizer.zero_grad()
    torch.autograd.backward(cross_entropy if term is None else cross_entropy + added)
    optimizer.step()
    return cross_entropy.detach(), added.detach()
