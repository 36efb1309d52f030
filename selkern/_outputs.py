"""What a network's layers put out, taken by forward hooks."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from torch import Tensor, nn

__all__ = ["LayerOutputs", "layers_of_kind"]


def layers_of_kind(model: nn.Module, kind: type[nn.Module]) -> dict[str, nn.Module]:
    """Every module of a kind by its name."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, kind)}


class LayerOutputs:
    """Keeps the outputs of layers while `recording`, detached if asked, until it is closed."""

    def __init__(
        self, layers: Mapping[str, nn.Module], *, recording: bool = True, detached: bool = True
    ) -> None:
        self.recording = recording
        self.detached = detached
        self.maps: dict[str, Tensor] = {}
        self._handles = [
            layer.register_forward_hook(_Keep(self, name)) for name, layer in layers.items()
        ]

    def __enter__(self) -> LayerOutputs:
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
    def __init__(self, outputs: LayerOutputs, name: str) -> None:
        self.outputs = outputs
        self.name = name

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> None:
        if self.outputs.recording:
            self.outputs.maps[self.name] = output.detach() if self.outputs.detached else output
