"""The 1/n regularizer of Nassar et al. (2020) as it is written in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from selkern._benchmarks.losses import (
    Penalty,
    covariance_eigenvectors,
    eigenvalue_loss,
    published_loss,
    vectorised_loss,
)
from selkern._outputs import LayerOutputs
from selkern.demo.data import Images
from selkern.demo.spectrum.model import hidden_layers

__all__ = ["PlainRegularizer", "principal_axes"]

KINDS: dict[str, Penalty] = {
    "published": vectorised_loss,
    "published, one by one": published_loss,
    "exact": eigenvalue_loss,
}


def principal_axes(model: nn.Module, images: Images) -> list[Tensor]:
    """Eigenvectors of every hidden layer's covariance over all images, in columns."""
    with torch.no_grad(), LayerOutputs(hidden_layers(model)) as outputs:
        model(images.images)
    return [covariance_eigenvectors(x) for x in outputs.maps.values()]


class PlainRegularizer:
    """The penalty on every hidden layer: the published one, frozen, or an exact one.

    Parameters
    ----------
    model : nn.Module
        The network.
    beta : float
        Strength.
    kind : {"published", "published, one by one", "exact"}
        Variances along principal axes that stay as they were found last, penalised all at once or,
        as in the published code, one after the other; or the batch's own eigenvalues.
    """

    def __init__(self, model: nn.Module, beta: float, kind: str = "published") -> None:
        self.model = model
        self.beta = beta
        self.penalty = KINDS[kind]
        self.axes: list[Tensor] = []
        self.outputs = LayerOutputs(hidden_layers(model), detached=False)

    def refresh(self, images: Images) -> None:
        """Find the principal axes of all images; the first term needs them."""
        self.axes = principal_axes(self.model, images)

    def __call__(self) -> Tensor:
        """Return the term of the last forward."""
        pairs = zip(self.outputs.maps.values(), self.axes, strict=True)
        return self.beta * torch.stack([self.penalty(x, axes) for x, axes in pairs]).mean()
