"""Accuracy over the test set, and the spectra of the hidden layers over the training set."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

import selkern
from selkern import analysis
from selkern._benchmarks.losses import ANCHOR
from selkern._outputs import LayerOutputs
from selkern.demo.data import Digits
from selkern.demo.spectrum.model import hidden_layers

__all__ = ["FIRST_RANK", "SHORT_FIT", "Evaluation", "Layer", "evaluate"]

FIRST_RANK = ANCHOR + 1
"""The first rank that the regularizer penalises."""
SHORT_FIT = 50
"""Last rank of the shorter of the two fits; the other takes all."""


@dataclass(frozen=True)
class Layer:
    """The spectrum of one hidden layer over the whole training set, and its power laws."""

    spectrum: Tensor
    whole: analysis.PowerLawFit
    short: analysis.PowerLawFit


@dataclass(frozen=True)
class Evaluation:
    """What a network does with the digits."""

    accuracy: float
    layers: dict[str, Layer]


def evaluate(model: nn.Module, digits: Digits) -> Evaluation:
    """Evaluate a network."""
    with torch.no_grad():
        logits = model(digits.test.images)
        with LayerOutputs(hidden_layers(model)) as outputs:
            model(digits.train.images)
    return Evaluation(
        accuracy=float((logits.argmax(1) == digits.test.labels).double().mean()),
        layers={name: _layer(x) for name, x in outputs.maps.items()},
    )


def _layer(x: Tensor) -> Layer:
    spectrum = selkern.eigenspectrum(x.double()).cpu()
    return Layer(
        spectrum,
        whole=analysis.fit_power_law(spectrum, FIRST_RANK, len(spectrum)),
        short=analysis.fit_power_law(spectrum, FIRST_RANK, SHORT_FIT),
    )
