"""What is measured on a trained network, batch by batch, with nothing kept per sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import selkern
from selkern import analysis
from selkern._modes import evaluating
from selkern._moments import Moments
from selkern._outputs import LayerOutputs

__all__ = [
    "FRACTIONS",
    "ClassSums",
    "UnderPerturbation",
    "accuracy",
    "is_right",
    "selectivity",
    "spectra",
    "under_perturbation",
]

FRACTIONS = (0.90, 0.95, 0.99)
"""Of the variance, that the components of a change are to hold."""

Batches = Iterable[tuple[Tensor, Tensor]]
Perturb = Callable[[Tensor, Tensor], Tensor]
Layers = Mapping[str, nn.Module]


def is_right(logits: Tensor, labels: Tensor) -> int:
    """Number of samples whose largest logit is that of their label."""
    return int((logits.argmax(1) == labels).sum())


@torch.no_grad()
def accuracy(model: nn.Module, batches: Batches) -> float:
    """Share of the images that a network gets right."""
    right, count = 0, 0
    with evaluating(model):
        for images, labels in batches:
            right += is_right(model(images), labels)
            count += len(labels)
    return right / count


class ClassSums:
    """Sums of a layer's spatial means over the samples of each class."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.sums: Tensor | float = 0.0
        self.counts: Tensor | int = 0

    def add(self, maps: Tensor, labels: Tensor) -> None:
        """Take in the activations of a batch."""
        means, counts = selkern.class_means(maps, labels, self.num_classes)
        self.sums = self.sums + means.double() * counts[:, None]
        self.counts = self.counts + counts

    def means(self) -> tuple[Tensor, Tensor]:
        """Class means over all samples, and how many each class has."""
        counts = torch.as_tensor(self.counts)
        return self.sums / counts.clamp(min=1)[:, None], counts


@torch.no_grad()
def selectivity(
    model: nn.Module, batches: Batches, layers: Layers, num_classes: int
) -> tuple[float, dict[str, float]]:
    """Accuracy, and the mean selectivity index of each layer's units over all images."""
    right, count = 0, 0
    sums = {name: ClassSums(num_classes) for name in layers}
    with evaluating(model), LayerOutputs(layers) as outputs:
        for images, labels in batches:
            right += is_right(model(images), labels)
            count += len(labels)
            for name, maps in outputs.maps.items():
                sums[name].add(maps, labels)
    index = {
        name: float(selkern.selectivity_index_from_means(*of_layer.means()).mean())
        for name, of_layer in sums.items()
    }
    return right / count, index


@dataclass(frozen=True)
class UnderPerturbation:
    """What a perturbation of the images does to a network."""

    accuracy: float
    dimensionality: dict[str, list[float]]
    """By layer, for each of ``FRACTIONS``: components of the change for that fraction of its
    variance, divided by the layer's width."""


@torch.no_grad()
def under_perturbation(
    model: nn.Module, batches: Batches, layers: Layers, perturb: Perturb
) -> UnderPerturbation:
    """Measure accuracy on perturbed images, and the dimensionality of what changes in each layer.

    The measure of Leavitt & Morcos: principal components of clean minus perturbed activations,
    feature maps averaged over positions, as :func:`selkern.analysis.perturbation_dimensionality`,
    from covariances that are merged batch by batch.

    Parameters
    ----------
    model : nn.Module
        The network.
    batches : iterable of (Tensor, Tensor)
        Images and labels.
    layers : mapping
        The layers by name.
    perturb : callable
        ``perturb(images, labels)``, the perturbed images.
    """
    right, count = 0, 0
    moments = {name: Moments(name) for name in layers}
    with evaluating(model):
        for images, labels in batches:
            perturbed = perturb(images, labels)
            # Attacks run the model themselves, so layers are listened to only here.
            with LayerOutputs(layers) as outputs:
                model(images)
                clean = {name: _pooled(maps) for name, maps in outputs.maps.items()}
                right += is_right(model(perturbed), labels)
                for name, maps in outputs.maps.items():
                    moments[name].merge(clean[name] - _pooled(maps))
            count += len(labels)
    return UnderPerturbation(
        right / count, {name: _dimensionality(change) for name, change in moments.items()}
    )


def _pooled(maps: Tensor) -> Tensor:
    pooled = maps if maps.dim() == 2 else selkern.spatial_mean(maps)
    return pooled.double()


def _dimensionality(change: Moments) -> list[float]:
    spectrum = change.spectrum()
    return [
        int(analysis.components_for_variance(spectrum, fraction)) / len(spectrum)
        for fraction in FRACTIONS
    ]


@torch.no_grad()
def spectra(model: nn.Module, batches: Batches, layers: Layers) -> dict[str, Tensor]:
    """Eigenvalues of each layer's covariance over all images, flattened, largest first."""
    moments = {name: Moments(name) for name in layers}
    with evaluating(model), LayerOutputs(layers) as outputs:
        for images, _ in batches:
            model(images)
            for name, x in outputs.maps.items():
                moments[name].merge(x.flatten(1))
    return {name: of_layer.spectrum() for name, of_layer in moments.items()}
