"""Capture work in a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Outcome", "captured"]

WARMUP = 3


@dataclass(frozen=True)
class Outcome:
    """What one repetition computes: a value, more outputs and gradients; all may be missing."""

    value: Tensor | None = None
    gradients: Iterable[Tensor] = ()
    outputs: Iterable[Tensor] = ()

    def detached(self) -> Outcome:
        """The same without what autograd keeps."""
        return Outcome(
            None if self.value is None else self.value.detach(),
            [gradient.detach() for gradient in self.gradients],
            [output.detach() for output in self.outputs],
        )


def captured(function: Callable[[], Outcome], device: torch.device) -> Callable[[], Outcome]:
    """Capture `function` in a CUDA graph, and return what replays it.

    Elsewhere than on a GPU, where there are no graphs, it is the function itself.
    """
    if device.type != "cuda":
        return lambda: function().detached()
    warm_up(function)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outcome = function().detached()

    def replay() -> Outcome:
        graph.replay()
        return outcome

    return replay


def warm_up(function: Callable[[], Outcome]) -> None:
    """Run on another stream first: handles, workspaces and kernels must be there."""
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARMUP):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
