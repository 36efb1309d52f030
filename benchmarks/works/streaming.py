"""The streaming operators on maps of ResNet-50, one shape a work."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, ClassVar

import torch
from torch import Tensor

import selkern

from ..compare import Comparison
from ..models import RESNET50_MAPS
from ..work import COPY, IN_A_GRAPH, Outcome, Target, contender
from . import inputs
from .copying import COLD, WithCopy, sets_beyond_cache

__all__ = ["ReluWithMean", "ReluWithMeanBackward", "SpatialMean", "Streaming", "streaming_works"]

FUSED = "selkern"
PAGE = "eager page"
CAREFUL = "eager careful"
COMPILED = "eager careful, compiled"
AUTOTUNED = "eager careful, compiled max-autotune"

LEAST_CALLS = 8
"""Calls of a repetition, so that waking an idle GPU is a small part of it."""


class Streaming(WithCopy):
    """One operator applied to maps of one shape, several calls a repetition."""

    operation: ClassVar[str]
    shape: ClassVar[tuple[int, ...]]
    batch: ClassVar[int] = 256
    channels_last: ClassVar[bool]
    compiled_at: ClassVar[tuple[tuple[int, ...], torch.dtype]] = ((256, 56, 56), torch.bfloat16)
    """Where torch.compile takes part: seconds of compiling for what is the same kernel in all."""
    rounds = 20
    quick_rounds = 10
    caches = COLD
    value_tolerance = 2e-6
    gradient_tolerance = 1e-5
    targets = tuple(
        Target(
            f"copy / {label}",
            partial(Comparison.percent, numerator=copy, denominator=label),
            90.0,
            unit="%",
        )
        for copy, label in [(COPY + IN_A_GRAPH, FUSED + IN_A_GRAPH), (COPY, FUSED)]
    )

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        source = inputs.generator(device=device)
        self.source = source
        first = self.make_inputs()
        self._sets = sets_beyond_cache(self.device, inputs.num_bytes(first))
        self.inputs = [first, *(self.make_inputs() for _ in range(self.sets - 1))]

    @property
    def sets(self) -> int:
        return self._sets

    @property
    def calls(self) -> int:
        return max(LEAST_CALLS, self.sets) if self.device.type == "cuda" else self.sets

    def make_maps(self) -> Tensor:
        x = inputs.normal(self.batch, *self.shape, source=self.source).to(self.dtype)
        return x.to(memory_format=torch.channels_last) if self.channels_last else x

    def make_inputs(self) -> list[Tensor]:
        return [self.make_maps()]

    def moved_bytes(self) -> int:
        raise NotImplementedError

    def means_bytes(self) -> int:
        return self.batch * self.shape[0] * 4

    def run(self, function: Callable[..., Any]) -> Outcome:
        """Apply a function to the sets in turn; the last result of each is kept until the end.

        So outputs do not stay in the cache either.
        """
        results: list[Any] = [None] * self.sets
        for call in range(self.calls):
            results[call % self.sets] = function(*self.inputs[call % self.sets])
        return self.as_outcome(results[0])

    def as_outcome(self, result: Any) -> Outcome:
        raise NotImplementedError

    def fused_function(self) -> Callable[..., Any]:
        raise NotImplementedError

    def page_function(self) -> Callable[..., Any]:
        raise NotImplementedError

    def careful_function(self) -> Callable[..., Any]:
        raise NotImplementedError

    @contender(FUSED, "selkern", fits_graph=True)
    def fused(self) -> Outcome:
        return self.run(self.fused_function())

    @contender(PAGE, fits_graph=True)
    def page(self) -> Outcome:
        return self.run(self.page_function())

    @contender(CAREFUL, fits_graph=True)
    def careful(self) -> Outcome:
        return self.run(self.careful_function())

    @contender(COMPILED, compiled=True)
    def compiled_careful(self) -> Outcome:
        return self.run(self._compiled)

    @contender(AUTOTUNED, compiled=True)
    def autotuned_careful(self) -> Outcome:
        return self.run(self._autotuned)

    @cached_property
    def _compiled(self) -> Callable[..., Any]:
        return torch.compile(self.careful_function(), dynamic=False)

    @cached_property
    def _autotuned(self) -> Callable[..., Any]:
        mode = "max-autotune-no-cudagraphs"
        return torch.compile(self.careful_function(), dynamic=False, mode=mode)

    def value_tolerance_of(self, label: str) -> float:
        # The page takes the mean in the dtype of the maps.
        is_page = label.startswith(PAGE) and self.dtype != torch.float32
        return 1e-2 if is_page else self.value_tolerance


def _page_mean(x: Tensor) -> Tensor:
    return x.mean((2, 3))


class SpatialMean(Streaming):
    operation = "spatial_mean"

    def moved_bytes(self) -> int:
        return inputs.num_bytes(self.inputs[0]) + self.means_bytes()

    def as_outcome(self, result: Tensor) -> Outcome:
        return Outcome(result)

    def fused_function(self) -> Callable[..., Any]:
        return selkern.spatial_mean

    def page_function(self) -> Callable[..., Any]:
        return _page_mean

    def careful_function(self) -> Callable[..., Any]:
        return selkern.reference.spatial_mean

    def expected(self, label: str) -> Outcome:
        if label == COPY:
            return super().expected(label)
        return Outcome(self.inputs[0][0].double().mean((2, 3)))


def _page_relu(x: Tensor) -> tuple[Tensor, Tensor]:
    y = torch.relu(x)
    return y, y.mean((2, 3))


class ReluWithMean(Streaming):
    operation = "relu_with_mean"

    def moved_bytes(self) -> int:
        return 2 * inputs.num_bytes(self.inputs[0]) + self.means_bytes()

    def as_outcome(self, result: tuple[Tensor, Tensor]) -> Outcome:
        return Outcome(result[1], outputs=[result[0]])

    def fused_function(self) -> Callable[..., Any]:
        return selkern.relu_with_mean

    def page_function(self) -> Callable[..., Any]:
        return _page_relu

    def careful_function(self) -> Callable[..., Any]:
        return selkern.reference.relu_with_mean

    def expected(self, label: str) -> Outcome:
        if label == COPY:
            return super().expected(label)
        y = torch.relu(self.inputs[0][0]).double()
        return Outcome(y.mean((2, 3)), outputs=[y])


def _raw_backward(y: Tensor, grad_y: Tensor, grad_mean: Tensor) -> Tensor:
    return torch.ops.selkern.relu_with_mean_backward(grad_y, grad_mean, y)


def _page_backward(y: Tensor, grad_y: Tensor, grad_mean: Tensor) -> Tensor:
    """What autograd does for a ReLU and a mean: a pass for each."""
    positions = y.shape[2] * y.shape[3]
    of_mean = grad_mean.to(y.dtype)[:, :, None, None].expand_as(y) / positions
    return torch.ops.aten.threshold_backward(grad_y + of_mean, y, 0)


def _careful_backward(y: Tensor, grad_y: Tensor, grad_mean: Tensor) -> Tensor:
    positions = y.shape[2] * y.shape[3]
    of_mean = (grad_mean / positions).to(y.dtype)[:, :, None, None]
    return torch.where(y > 0, grad_y + of_mean, 0)


class ReluWithMeanBackward(Streaming):
    operation = "relu_with_mean_backward"
    gradient_tolerance = 1e-2

    def make_inputs(self) -> list[Tensor]:
        y, grad_y = torch.relu(self.make_maps()), self.make_maps()
        grad_mean = inputs.normal(self.batch, self.shape[0], source=self.source)
        return [y, grad_y, grad_mean]

    def moved_bytes(self) -> int:
        y, grad_y, grad_mean = self.inputs[0]
        return inputs.num_bytes([y, grad_y, grad_mean, y])

    def as_outcome(self, result: Tensor) -> Outcome:
        return Outcome(gradients=[result])

    def fused_function(self) -> Callable[..., Any]:
        return _raw_backward

    def page_function(self) -> Callable[..., Any]:
        return _page_backward

    def careful_function(self) -> Callable[..., Any]:
        return _careful_backward

    def gradient_tolerance_of(self, label: str) -> float:
        return 1e-5 if self.dtype == torch.float32 else self.gradient_tolerance

    def expected(self, label: str) -> Outcome:
        if label == COPY:
            return super().expected(label)
        y, grad_y, grad_mean = self.inputs[0]
        positions = y.shape[2] * y.shape[3]
        of_mean = (grad_mean.double() / positions)[:, :, None, None]
        return Outcome(gradients=[torch.where(y > 0, grad_y.double() + of_mean, 0)])


# These come first.
MAIN_SHAPES = ((256, 56, 56), (2048, 7, 7), (64, 112, 112), (512, 14, 14))
DTYPES = (torch.bfloat16, torch.float32)
OPERATIONS: tuple[type[Streaming], ...] = (ReluWithMean, SpatialMean, ReluWithMeanBackward)


def streaming_works(
    shapes: tuple[tuple[int, ...], ...],
    batch: int = 256,
    operations: tuple[type[Streaming], ...] = OPERATIONS,
) -> list[type[Streaming]]:
    """A work for each operator, dtype, layout and shape."""
    return [
        _work(operation, shape, batch, dtype, channels_last)
        for shape in shapes
        for operation in operations
        for dtype in DTYPES
        for channels_last in (True, False)
    ]


def _work(
    operation: type[Streaming],
    shape: tuple[int, ...],
    batch: int,
    dtype: torch.dtype,
    channels_last: bool,
) -> type[Streaming]:
    type_name = str(dtype).removeprefix("torch.")
    layout = "channels_last" if channels_last else "contiguous"
    size = "x".join(map(str, shape))
    is_compiled = (shape, dtype) == operation.compiled_at
    members = {
        "name": f"{operation.operation}_{size}_{type_name}_{layout}",
        "title": f"{operation.operation} of [{batch}, {', '.join(map(str, shape))}], {type_name}, "
        f"{layout.replace('_', '-')}, per call",
        "shape": shape,
        "batch": batch,
        "dtype": dtype,
        "channels_last": channels_last,
        "omitted": frozenset() if is_compiled else frozenset({COMPILED, AUTOTUNED}),
    }
    return type(operation.__name__, (operation,), members)


def other_shapes() -> tuple[tuple[int, ...], ...]:
    return tuple(shape for shape in RESNET50_MAPS if shape not in MAIN_SHAPES)
