"""What a network's ReLUs put out, taken by forward hooks."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from torch import Tensor, nn

from selkern.demo.model import relu_layers

__all__ = ["ReLUOutputs"]


class ReLUOutputs:
    """Keeps the detached outputs of a model's ReLUs while `recording`, until it is closed."""

    def __init__(self, model: nn.Module, *, recording: bool = True) -> None:
        self.recording = recording
        self.maps: dict[str, Tensor] = {}
        self._handles = [
            layer.register_forward_hook(_Keep(self, name))
            for name, layer in relu_layers(model).items()
        ]

    def __enter__(self) -> ReLUOutputs:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()


class _Keep:
    def __init__(self, outputs: ReLUOutputs, name: str) -> None:
        self.outputs = outputs
        self.name = name

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> None:
        if self.outputs.recording:
            self.outputs.maps[self.name] = output.detach()
