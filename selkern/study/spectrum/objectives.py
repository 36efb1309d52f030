"""What the networks are trained on: cross entropy and the regularizers that are compared."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selkern.data import ImageSet
from selkern.spectral_regularizer import SpectralRegularizer
from selkern.study.spectrum.networks import BATCH, hidden_layers
from selkern.study.training import Objective

__all__ = [
    "ALL",
    "ALL_FROZEN",
    "JACOBIAN",
    "LAST",
    "LAST_FROZEN",
    "NONE",
    "REGULARIZERS",
    "WHITENING",
    "JacobianObjective",
    "SpectralObjective",
    "make_objective",
    "projected_jacobian",
]

NONE, WHITENING, JACOBIAN = "none", "whitening", "Jacobian"
LAST, LAST_FROZEN = "last layer", "last layer, frozen"
ALL, ALL_FROZEN = "all layers", "all layers, frozen"

REGULARIZERS = {
    NONE: "cross entropy alone",
    LAST: "1/n on the last hidden layer, from each batch's own eigenvalues",
    LAST_FROZEN: "1/n on the last hidden layer, along eigenvectors found once an epoch",
    ALL: "1/n on all hidden layers, from each batch's own eigenvalues",
    ALL_FROZEN: "1/n on all hidden layers, along eigenvectors found once an epoch, as published",
    WHITENING: "every hidden layer whitened by the Cholesky factor of its covariance",
    JACOBIAN: "squared norm of the input-output Jacobian, by one random projection",
}


def make_objective(
    regularizer: str, model: nn.Module, *, beta: float, jacobian: float
) -> Objective:
    """Make the objective of one of ``REGULARIZERS``; whitening is part of the network."""
    if regularizer in (LAST, LAST_FROZEN, ALL, ALL_FROZEN):
        layers = list(hidden_layers(model))
        chosen = layers if regularizer in (ALL, ALL_FROZEN) else layers[-1:]
        mode = "frozen" if regularizer in (LAST_FROZEN, ALL_FROZEN) else "exact"
        return SpectralObjective(model, beta, chosen, mode)
    if regularizer == JACOBIAN:
        return JacobianObjective(model, jacobian)
    return Objective(model)


class SpectralObjective(Objective):
    r"""Cross entropy and the 1/n penalty (Nassar et al., arXiv 2012.04729).

    .. math:: L = \mathrm{cross\ entropy} + \beta \sum_l P_l

    with the penalty :math:`P_l` of :func:`selkern.spectral_loss` on a hidden layer; summed over
    layers as published, where :class:`selkern.SpectralRegularizer` takes their mean.

    Parameters
    ----------
    model : nn.Module
        The network to train.
    beta : float
        Strength.
    layers : list of str
        Names of the hidden layers.
    mode : {"exact", "frozen"}
        Eigenvalues of each batch, or variances along eigenvectors that are found once an epoch over
        all training images.
    """

    def __init__(self, model: nn.Module, beta: float, layers: list[str], mode: str) -> None:
        super().__init__(model)
        self.penalty = SpectralRegularizer(model, beta=beta * len(layers), layers=layers, mode=mode)

    def begin_epoch(self, images: ImageSet, generator: torch.Generator) -> None:
        """Find the eigenvectors anew, if the mode is "frozen"."""
        if self.penalty.mode == "frozen":
            self.penalty.refresh(images.batches(BATCH))

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Loss of a batch."""
        return super().__call__(images, labels) + self.penalty()


class JacobianObjective(Objective):
    """Cross entropy and ``coefficient`` times :func:`projected_jacobian`.

    Parameters
    ----------
    model : nn.Module
        The network to train.
    coefficient : float
        Strength.
    """

    def __init__(self, model: nn.Module, coefficient: float) -> None:
        super().__init__(model)
        self.coefficient = coefficient
        self.generator: torch.Generator | None = None

    def begin_epoch(self, images: ImageSet, generator: torch.Generator) -> None:
        """Draw from the training's generator, which a training that goes on gets back."""
        self.generator = generator

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Loss of a batch."""
        images = images.detach().requires_grad_()
        logits = self.model(images)
        penalty = projected_jacobian(images, logits, self.generator)
        return F.cross_entropy(logits, labels) + self.coefficient * penalty


def projected_jacobian(
    images: Tensor, logits: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    r"""Estimate half the mean squared norm of the Jacobian (Hoffman et al., arXiv 1908.02729).

    .. math:: \frac{1}{2 N} \sum_i K\, \| \nabla_{x_i} (v_i \cdot z_i) \|^2 \approx
              \frac{1}{2 N} \sum_i \| \partial z_i / \partial x_i \|_F^2

    with the :math:`K` logits :math:`z_i` of image :math:`x_i` and a direction :math:`v_i` drawn
    uniformly from the unit sphere: its expectation is the right side. Images count in the units
    that they are given in, here brightness in [0, 1] before the network's normalization.

    Parameters
    ----------
    images : Tensor
        ``[N, ...]``, of which the logits are a function.
    logits : Tensor
        ``[N, K]``.
    generator : torch.Generator, optional
        What draws the directions, on the CPU.

    Returns
    -------
    Tensor
        A scalar, with a gradient for the parameters.
    """
    directions = F.normalize(torch.randn(logits.shape, generator=generator), dim=1)
    projection = (logits * directions.to(logits)).sum()
    (gradient,) = torch.autograd.grad(projection, images, create_graph=True)
    return logits.shape[1] / 2 * gradient.flatten(1).square().sum(1).mean()
