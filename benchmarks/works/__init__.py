"""Every piece of work that is timed."""

from __future__ import annotations

from ..work import Work
from .class_means import ClassMeans200, ClassMeans1000
from .cuda import CUDA_HEADLINES, CUDA_WORKS
from .relu_stack import ReLUStack
from .selectivity import MeanSelectivityForward, TokenInputSelectivity, TokenSelectivity
from .training import TrainingStep

__all__ = ["CUDA_HEADLINES", "CUDA_WORKS", "POOLING", "SELECTIVITY", "TRAINING", "WORKS"]

POOLING: tuple[type[Work], ...] = (ReLUStack,)
SELECTIVITY: tuple[type[Work], ...] = (
    MeanSelectivityForward,
    TokenSelectivity,
    TokenInputSelectivity,
    ClassMeans200,
    ClassMeans1000,
)
TRAINING: tuple[type[Work], ...] = (TrainingStep,)

WORKS: dict[str, type[Work]] = {work.name: work for work in (*POOLING, *SELECTIVITY, *TRAINING)}
