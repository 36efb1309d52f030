"""The works of a GPU: those of the CPU with more rivals, and what only a GPU shows."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch

from ..compare import Comparison, Quartiles
from ..work import IN_A_GRAPH, Outcome, Target, Work, contender
from . import attacks_cuda, relu_stack, selectivity, spectrum_cuda
from .class_means import ClassMeans, class_means_targets
from .copying import WithCopy
from .relu_stack import ReLUStack
from .resnet18 import ResNet18Step, ResNet18StepContiguous
from .selectivity import MeanSelectivityForward
from .streaming import MAIN_SHAPES, other_shapes, streaming_works

__all__ = ["CUDA_HEADLINES", "CUDA_WORKS"]

MAX_AUTOTUNE = "max-autotune-no-cudagraphs"


def _ratio(numerator: str, denominator: str) -> Callable[[Comparison], Quartiles]:
    return lambda comparison: comparison.ratio(numerator, denominator)


class CudaReLUStack(WithCopy, ReLUStack):
    # The page waits for the labels' values, which compiles to many pieces.
    omitted = frozenset({"eager page, compiled"})
    targets = (
        Target(
            "eager page / relu_with_mean in a graph",
            _ratio(relu_stack.PAGE, relu_stack.FUSED + IN_A_GRAPH),
            20.0,
        ),
        Target(
            "eager careful in a graph / relu_with_mean in a graph",
            _ratio(relu_stack.CAREFUL + IN_A_GRAPH, relu_stack.FUSED + IN_A_GRAPH),
            4.0,
        ),
        *ReLUStack.targets,
    )

    @contender("eager careful, compiled max-autotune", compiled=True)
    def autotuned_careful(self) -> Outcome:
        return self._step(self._autotuned)

    @cached_property
    def _autotuned(self) -> relu_stack.Stack:
        return torch.compile(relu_stack.careful_stack, dynamic=False, mode=MAX_AUTOTUNE)

    def expected(self, label: str) -> Outcome:
        is_copy = self.contenders[label].role == "copy"
        return WithCopy.expected(self, label) if is_copy else ReLUStack.expected(self, label)


class CudaMeanSelectivity(WithCopy, MeanSelectivityForward):
    omitted = frozenset({"eager page, compiled"})

    @contender("eager careful, compiled max-autotune", compiled=True)
    def autotuned_careful(self) -> Outcome:
        return Outcome(self._autotuned(self.maps, self.labels))

    @cached_property
    def _autotuned(self) -> selectivity.Index:
        return torch.compile(selectivity.careful_of_maps, dynamic=False, mode=MAX_AUTOTUNE)

    def expected(self, label: str) -> Outcome:
        is_copy = self.contenders[label].role == "copy"
        parent = WithCopy if is_copy else MeanSelectivityForward
        return parent.expected(self, label)


class _CudaClassMeans(WithCopy, ClassMeans):
    def expected(self, label: str) -> Outcome:
        is_copy = self.contenders[label].role == "copy"
        return WithCopy.expected(self, label) if is_copy else ClassMeans.expected(self, label)


class CudaClassMeans200(_CudaClassMeans):
    name = "class_means_200"
    title = "class_means of [4096, 2048], 200 classes, forward"
    num_classes = 200
    targets = class_means_targets(1.7)


class CudaClassMeans1000(_CudaClassMeans):
    name = "class_means_1000"
    title = "class_means of [4096, 2048], 1,000 classes, forward"
    num_classes = 1000
    targets = class_means_targets(2.0)


class CudaClassMeans70000(_CudaClassMeans):
    name = "class_means_70000"
    title = "class_means of [4096, 2048], 70,000 classes, forward"
    num_classes = 70_000
    rounds = 30
    targets = class_means_targets(1.0)


_FIRST: tuple[type[Work], ...] = (
    *streaming_works(MAIN_SHAPES[:1]),
    *attacks_cuda.LINF_STEPS,
    *spectrum_cuda.SPECTRA,
    *spectrum_cuda.SOLVERS,
    *spectrum_cuda.FROZEN_BASIS,
    ResNet18Step,
    attacks_cuda.CudaPGDAttack,
    CudaReLUStack,
    CudaMeanSelectivity,
    CudaClassMeans200,
    CudaClassMeans1000,
    CudaClassMeans70000,
    *streaming_works(MAIN_SHAPES[1:2]),
    ResNet18StepContiguous,
    *attacks_cuda.L2_STEPS,
    *spectrum_cuda.STEPS,
    *spectrum_cuda.MORE_SOLVERS,
)
_MORE: tuple[type[Work], ...] = tuple(streaming_works((*MAIN_SHAPES[2:], *other_shapes())))

CUDA_WORKS: dict[str, type[Work]] = {work.name: work for work in (*_FIRST, *_MORE)}
"""In the order of their weight, because a run may have to stop before the last."""

CUDA_HEADLINES = (
    "relu_stack",
    "mean_selectivity",
    "relu_with_mean_256x56x56_bfloat16_channels_last",
    "class_means_1000",
    "resnet18_step_channels_last",
    "eigenspectrum_128x2000",
    "eigenspectrum_256x128x32",
    "eigvalsh_256x32x32",
    "eigh_256x128x128",
    "frozen_basis_3500x2000",
    "mlp_step",
    "pgd_step_linf_3x224x224_float32_contiguous",
)
"""Names of the works that the README shows."""
