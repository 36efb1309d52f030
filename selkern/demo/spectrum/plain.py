"""The 1/n regularizer of Nassar et al. (2020) as it is written in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from selkern.demo.data import Images
from selkern.demo.outputs import LayerOutputs
from selkern.demo.spectrum.model import hidden_layers

__all__ = ["PlainRegularizer", "principal_axes"]

ANCHOR = 11


def principal_axes(model: nn.Module, images: Images) -> list[Tensor]:
    """Eigenvectors of every hidden layer's covariance over all images, in columns."""
    with torch.no_grad(), LayerOutputs(hidden_layers(model)) as outputs:
        model(images.images)
    covariances = (torch.cov(x.double().T) for x in outputs.maps.values())
    return [torch.linalg.eigh(covariance).eigenvectors.float() for covariance in covariances]


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
        self.kind = kind
        self.axes: list[Tensor] = []
        self.outputs = LayerOutputs(hidden_layers(model), detached=False)

    def refresh(self, images: Images) -> None:
        """Find the principal axes of all images."""
        self.axes = principal_axes(self.model, images)

    def __call__(self) -> Tensor:
        """Return the term of the last forward."""
        covariances = [_covariance(x) for x in self.outputs.maps.values()]
        if self.kind == "exact":
            spectra = [torch.linalg.eigvalsh(covariance).flip(0) for covariance in covariances]
        else:
            spectra = [
                torch.diagonal(axes.T @ covariance @ axes).sort(descending=True).values
                for covariance, axes in zip(covariances, self.axes, strict=True)
            ]
        penalty = _penalty_one_by_one if self.kind == "published, one by one" else _penalty
        return self.beta * torch.stack([penalty(spectrum) for spectrum in spectra]).mean()


def _covariance(x: Tensor) -> Tensor:
    centred = x - x.mean(0)
    return centred.T @ centred / (len(x) - 1)


def _penalty(spectrum: Tensor) -> Tensor:
    ranks = torch.arange(1, len(spectrum) + 1)
    law = spectrum[ANCHOR - 1].detach() * ANCHOR / ranks
    excess = (spectrum / law - 1)[ANCHOR:]
    terms = excess.square() + excess.relu()
    return torch.where(spectrum[ANCHOR:] > 0, terms, 0).sum() / len(spectrum)


def _penalty_one_by_one(spectrum: Tensor) -> Tensor:
    kappa = spectrum[ANCHOR - 1].item() * ANCHOR
    total = torch.zeros(())
    for rank in range(ANCHOR + 1, len(spectrum) + 1):
        variance = spectrum[rank - 1]
        if variance > 0:
            excess = variance / (kappa / rank) - 1
            total = total + excess.square() + excess.relu()
    return total / len(spectrum)
