"""Accuracy and selectivity over the whole test set, batch by batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

import selkern
from selkern._outputs import LayerOutputs, layers_of_kind
from selkern.demo.data import NUM_CLASSES, Images
from selkern.study.measures import ClassSums

__all__ = ["Evaluation", "evaluate"]

BATCH_SIZE = 150


@dataclass(frozen=True)
class Evaluation:
    """What a network does on the test set."""

    accuracy: float
    index: dict[str, float]
    """Mean selectivity index of each layer's units."""
    dead_units: int
    units: int

    @property
    def overall_index(self) -> float:
        """Mean of the layers' indices."""
        return sum(self.index.values()) / len(self.index)


def evaluate(model: nn.Module, images: Images) -> Evaluation:
    """Evaluate a network on images.

    The selectivity index is that of the class means over all images, not a mean over batches. A
    dead unit is one that answers to no image at all.
    """
    correct = 0
    layers: dict[str, ClassSums] = {}
    training = model.training
    model.eval()
    with torch.no_grad(), LayerOutputs(layers_of_kind(model, nn.ReLU)) as outputs:
        for batch in images.batches(BATCH_SIZE):
            correct += int((model(batch.images).argmax(1) == batch.labels).sum())
            for name, maps in outputs.maps.items():
                layers.setdefault(name, ClassSums(NUM_CLASSES)).add(maps, batch.labels)
    model.train(training)

    class_means = {name: sums.means() for name, sums in layers.items()}
    index = {
        name: float(selkern.selectivity_index_from_means(means, counts).mean())
        for name, (means, counts) in class_means.items()
    }
    dead = [(means == 0).all(0) for means, _ in class_means.values()]
    return Evaluation(
        accuracy=correct / len(images),
        index=index,
        dead_units=sum(int(units.sum()) for units in dead),
        units=sum(len(units) for units in dead),
    )
