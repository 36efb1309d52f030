"""Every piece of work that is timed."""

from __future__ import annotations

from ..work import Work
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
    "CUDA_HEADLINES",
    "CUDA_WORKS",
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

WORKS: dict[str, type[Work]] = {
    work.name: work for work in (*POOLING, *SELECTIVITY, *SPECTRUM, *TRAINING)
}
