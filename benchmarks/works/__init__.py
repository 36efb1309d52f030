"""Every piece of work that is timed."""

from __future__ import annotations

from ..work import Work
from .attack_steps import L2Step, LinfStep, SmallLinfStep
from .attacks import PGDAttack
from .class_means import ClassMeans200, ClassMeans1000
from .cuda import CUDA_HEADLINES, CUDA_WORKS
from .frozen_basis import FrozenBasis1000, FrozenBasis2000
from .linalg import eigensolver_works
from .mlp_step import MLPStep
from .relu_stack import ReLUStack
from .selectivity import MeanSelectivityForward, TokenInputSelectivity, TokenSelectivity
from .spectrum import eigenspectrum_works
from .training import TrainingStep

__all__ = [
    "ATTACKS",
    "CUDA_HEADLINES",
    "CUDA_WORKS",
    "HEADLINES",
    "POOLING",
    "SELECTIVITY",
    "SPECTRUM",
    "TRAINING",
    "WORKS",
]

POOLING: tuple[type[Work], ...] = (ReLUStack,)
SELECTIVITY: tuple[type[Work], ...] = (
    MeanSelectivityForward,
    TokenSelectivity,
    TokenInputSelectivity,
    ClassMeans200,
    ClassMeans1000,
)
SPECTRUM: tuple[type[Work], ...] = (
    *eigenspectrum_works(),
    *eigensolver_works(),
    FrozenBasis1000,
    FrozenBasis2000,
)
TRAINING: tuple[type[Work], ...] = (TrainingStep, MLPStep)
ATTACKS: tuple[type[Work], ...] = (LinfStep, L2Step, SmallLinfStep, PGDAttack)

WORKS: dict[str, type[Work]] = {
    work.name: work for work in (*POOLING, *SELECTIVITY, *SPECTRUM, *TRAINING, *ATTACKS)
}

HEADLINES = (
    "relu_stack",
    "tokens",
    "class_means_1000",
    "training_step",
    "eigenspectrum_128x2000",
    "eigenspectrum_256x128x32",
    "eigenspectrum_2048x1000",
    "eigvalsh_256x32x32",
    "frozen_basis_1500x1000",
    "mlp_step",
    "pgd_step_linf",
    "pgd_attack_resnet20",
)
"""Names of the works that the README shows."""
