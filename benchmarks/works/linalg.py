"""Eigenvalues and eigenvectors of batches of small symmetric matrices."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

import selkern

from ..work import Outcome, Target, Work, contender
from . import inputs

__all__ = ["FUSED", "TORCH", "Eigenpairs", "Eigenvalues", "eigensolver_works"]

FUSED = "selkern.linalg"
TORCH = "torch.linalg"
NUMPY = "numpy.linalg"

BATCH = 256
# By the size of the matrices.
BOUNDS = {16: 12.0, 32: 10.0, 64: 8.0, 128: 5.0}


class Eigenvalues(Work):
    rounds = 20
    quick_rounds = 5
    batch: ClassVar[int] = BATCH
    size: ClassVar[int]

    @staticmethod
    def targets_of(size: int) -> tuple[Target, ...]:
        """What is to be reached with matrices of a size."""
        return (_target("eigvalsh", BOUNDS[size]),)

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        source = inputs.generator(device=device)
        x = inputs.normal(self.batch, 2 * self.size, self.size, source=source)
        self.matrices = (x.mT @ x) / len(x)

    @property
    def calls(self) -> int:
        return self.batch

    @contender(FUSED, "selkern", fits_graph=True)
    def fused(self) -> Outcome:
        return Outcome(selkern.linalg.eigvalsh(self.matrices))

    @contender(TORCH)
    def of_torch(self) -> Outcome:
        return Outcome(torch.linalg.eigvalsh(self.matrices))

    @contender(NUMPY)
    def of_numpy(self) -> Outcome:
        return Outcome(torch.from_numpy(np.linalg.eigvalsh(self.matrices.numpy())))

    def expected(self, label: str) -> Outcome:
        return Outcome(self._exact_values)

    @cached_property
    def _exact_values(self) -> Tensor:
        return torch.linalg.eigvalsh(self.matrices.double())


class Eigenpairs(Eigenvalues):
    @staticmethod
    def targets_of(size: int) -> tuple[Target, ...]:
        """What is to be reached with matrices of a size."""
        return (_target("eigh", 1.0),)

    @contender(FUSED, "selkern", fits_graph=True)
    def fused(self) -> Outcome:
        return self._outcome_of(*selkern.linalg.eigh(self.matrices))

    @contender(TORCH)
    def of_torch(self) -> Outcome:
        return self._outcome_of(*torch.linalg.eigh(self.matrices))

    @contender(NUMPY)
    def of_numpy(self) -> Outcome:
        values, vectors = np.linalg.eigh(self.matrices.numpy())
        return self._outcome_of(torch.from_numpy(values), torch.from_numpy(vectors))

    @staticmethod
    def _outcome_of(values: Tensor, vectors: Tensor) -> Outcome:
        return Outcome(values, outputs=[vectors])

    def check_outcome(self, label: str) -> Outcome:
        """The matrices that the result stands for, because vectors may have either sign."""
        outcome = super().check_outcome(label)
        values, (vectors,) = outcome.value, outcome.outputs
        assert values is not None
        product = (vectors.double() * values.unsqueeze(-2)) @ vectors.double().mT
        return Outcome(values, outputs=[product, vectors.double().mT @ vectors.double()])

    def expected(self, label: str) -> Outcome:
        identity = torch.eye(self.size, dtype=torch.float64, device=self.device)
        outputs = [self.matrices.double(), identity.expand_as(self.matrices)]
        return Outcome(self._exact_values, outputs=outputs)


def eigensolver_works(
    values_only: type[Eigenvalues] = Eigenvalues,
    with_vectors: type[Eigenvalues] = Eigenpairs,
    batches: tuple[int, ...] = (BATCH,),
) -> list[type[Eigenvalues]]:
    """A work for each kind, batch and size."""
    return [
        _work(kind, name, batch, size)
        for kind, name in ((values_only, "eigvalsh"), (with_vectors, "eigh"))
        for batch in batches
        for size in BOUNDS
    ]


def _work(kind: type[Eigenvalues], name: str, batch: int, size: int) -> type[Eigenvalues]:
    members = {
        "name": f"{name}_{batch}x{size}x{size}",
        "title": f"linalg.{name} of {batch} matrices {size} x {size}, per matrix",
        "batch": batch,
        "size": size,
        "targets": kind.targets_of(size),
    }
    return type(kind.__name__, (kind,), members)


def _target(name: str, bound: float) -> Target:
    return Target(
        f"torch.linalg.{name} / selkern.linalg.{name}",
        lambda comparison: comparison.ratio(TORCH, FUSED),
        bound,
    )
