"""A small fully connected network for the digits."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from selkern._outputs import layers_of_kind
from selkern.demo.data import NUM_CLASSES

__all__ = ["HIDDEN_LAYERS", "hidden_layers", "make_network"]

PIXELS = 64
HIDDEN_LAYERS = 3


def make_network(width: int) -> nn.Sequential:
    """Three hidden layers with tanh and a linear classifier, for images ``[N, 1, 8, 8]``."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    units = PIXELS
    for number in range(1, HIDDEN_LAYERS + 1):
        layers[f"linear{number}"] = nn.Linear(units, width)
        layers[f"tanh{number}"] = nn.Tanh()
        units = width
    layers["classifier"] = nn.Linear(units, NUM_CLASSES)
    return nn.Sequential(layers)


def hidden_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The activation modules of the hidden layers by name."""
    return layers_of_kind(model, nn.Tanh)
