"""The losses as a user would write them, without selkern."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "ANCHOR",
    "Penalty",
    "careful_spectrum",
    "covariance_eigenvectors",
    "covariance_spectrum",
    "eigenvalue_loss",
    "frozen_loss",
    "frozen_spectrum",
    "gram_spectrum",
    "mean_selectivity_page",
    "power_law_page",
    "published_loss",
    "published_penalty",
    "published_spectrum",
    "vectorised_loss",
]

ANCHOR = 11
"""Rank, counted from 1, where the power law meets the spectrum."""


def mean_selectivity_page(
    activations: Sequence[Tensor], labels: Tensor, position_axes: tuple[int, ...]
) -> Tensor:
    """Mean selectivity index: the textbook loop over layers and classes."""
    indices = []
    for activation in activations:
        means = activation.mean(position_axes) if position_axes else activation
        class_means = torch.stack([means[labels == label].mean(0) for label in labels.unique()])
        largest = class_means.max(0).values
        rest = (class_means.sum(0) - largest) / (len(class_means) - 1)
        indices.append(((largest - rest) / (largest + rest + 1e-6)).mean())
    return torch.stack(indices).mean()


# The functions below take samples by units [..., N, D]. Ranks N and beyond of their spectra would
# be nothing but rounding, and are left out.


def covariance_spectrum(x: Tensor) -> Tensor:
    """Descending eigenvalues of the covariance."""
    centered = x - x.mean(-2, keepdim=True)
    covariance = centered.mT @ centered / (x.shape[-2] - 1)
    return torch.linalg.eigvalsh(covariance).flip(-1)[..., : x.shape[-2] - 1]


def gram_spectrum(x: Tensor) -> Tensor:
    """The same from the Gram matrix of the samples, which is the smaller one where N < D."""
    centered = x - x.mean(-2, keepdim=True)
    gram = centered @ centered.mT / (x.shape[-2] - 1)
    return torch.linalg.eigvalsh(gram).flip(-1)[..., : x.shape[-2] - 1]


Solver = Callable[[Tensor], tuple[Tensor, Tensor]]


class _CarefulSpectrum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, solver: Solver) -> Tensor:
        samples, units = x.shape[-2:]
        centered = x - x.mean(-2, keepdim=True)
        products = centered @ centered.mT if samples < units else centered.mT @ centered
        values, vectors = solver(products)
        ctx.save_for_backward(centered, vectors)
        return values.flip(-1)[..., : samples - 1] / (samples - 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        centered, vectors = ctx.saved_tensors
        samples, units = centered.shape[-2:]
        weights = grad.flip(-1) * (2 / (samples - 1))
        kept = vectors[..., -weights.shape[-1] :]
        inner = (kept * weights.unsqueeze(-2)) @ kept.mT
        return (inner @ centered if samples < units else centered @ inner), None


def careful_spectrum(x: Tensor, solver: Solver = torch.linalg.eigh) -> Tensor:
    """The smaller of both matrices, decomposed once, and a backward of two products."""
    spectrum: Tensor = _CarefulSpectrum.apply(x, solver)
    return spectrum


def covariance_eigenvectors(x: Tensor) -> Tensor:
    """Eigenvectors of the covariance in columns, found in float64, as a basis in float32."""
    return torch.linalg.eigh(torch.cov(x.double().T)).eigenvectors.float()


def published_spectrum(x: Tensor, basis: Tensor) -> Tensor:
    """Variances along a basis as the published code takes them, from the covariance [D, D]."""
    centered = x - x.mean(0)
    covariance = centered.T @ centered / (x.shape[0] - 1)
    return torch.diag(basis.T @ covariance @ basis).sort(descending=True).values


def frozen_spectrum(x: Tensor, basis: Tensor) -> Tensor:
    """The same from the samples along the basis."""
    projected = (x - x.mean(0)) @ basis
    return (projected.square().sum(0) / (x.shape[0] - 1)).sort(descending=True).values


def power_law_page(spectrum: Tensor, width: int) -> Tensor:
    """Penalty of each spectrum [..., R] against 1/n."""
    rank = torch.arange(1, spectrum.shape[-1] + 1, device=spectrum.device)
    kappa = (ANCHOR * spectrum[..., ANCHOR - 1 : ANCHOR]).detach()
    excess = spectrum * rank / kappa - 1
    is_counted = (rank > ANCHOR) & (spectrum > 0)
    return torch.where(is_counted, excess.square() + excess.relu(), 0).sum(-1) / width


def published_penalty(spectrum: Tensor, width: int) -> Tensor:
    """Penalty of one spectrum [R] as the published code takes it, which looks at every value."""
    kappa = (ANCHOR * spectrum[ANCHOR - 1]).detach()
    penalty = spectrum.new_zeros(())
    for index in range(ANCHOR, len(spectrum)):
        if spectrum[index] > 0:
            excess = spectrum[index] / (kappa / (index + 1)) - 1
            penalty = penalty + excess**2 + torch.relu(excess)
    return penalty / width


Penalty = Callable[[Tensor, Tensor], Tensor]
"""Penalty of activations [N, D], given a basis [D, R]."""


def eigenvalue_loss(x: Tensor, basis: Tensor | None = None) -> Tensor:
    """Penalty of the eigenvalues themselves, which need no basis."""
    return power_law_page(covariance_spectrum(x), x.shape[1])


def published_loss(x: Tensor, basis: Tensor) -> Tensor:
    """The published method to the letter: one variance after the other."""
    return published_penalty(published_spectrum(x, basis), x.shape[1])


def vectorised_loss(x: Tensor, basis: Tensor) -> Tensor:
    """The published method with all variances at once."""
    return power_law_page(published_spectrum(x, basis), x.shape[1])


def frozen_loss(x: Tensor, basis: Tensor) -> Tensor:
    """The same without a covariance."""
    return power_law_page(frozen_spectrum(x, basis), x.shape[1])
