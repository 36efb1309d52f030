"""A small network whose spectra are regularized, and what a regularized step must give."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Network(nn.Module):
    """A convolution and two hidden layers, of which the second activation is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.relu = nn.ReLU()
        self.hidden = nn.Linear(64, 20)
        self.tanh = nn.Tanh()
        self.second = nn.Linear(20, 20)
        self.head = nn.Linear(20, 3)

    def activations(self, x: Tensor) -> list[Tensor]:
        conv = F.relu(self.conv(x))
        hidden = torch.tanh(self.hidden(conv.flatten(1)))
        return [conv, hidden, torch.tanh(self.second(hidden))]

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv(x))
        x = self.tanh(self.hidden(x.flatten(1)))
        return self.head(self.tanh(self.second(x)))


NAMES = ["relu", "tanh", "tanh_1"]


def images(samples: int, seed: int = 1) -> Tensor:
    return torch.rand(samples, 1, 6, 6, generator=torch.Generator().manual_seed(seed))


def gradients(loss: Tensor, model: nn.Module) -> list[Tensor]:
    parameters = [p for name, p in model.named_parameters() if not name.startswith("head")]
    return list(torch.autograd.grad(loss, parameters))


def assert_step(actual: Tensor, expected: Tensor, model: nn.Module) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
    for a, b in zip(gradients(actual, model), gradients(expected, model), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def eigenbasis(activations: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues and vectors of the covariance of all samples, in float64, descending.

    Those of directions in which the samples do not vary are left out.
    """
    samples = activations.flatten(1).double().numpy()
    values, vectors = np.linalg.eigh(np.cov(samples.T))
    kept = values > 1e-12 * values[-1]
    return torch.from_numpy(values[kept][::-1].copy()), torch.from_numpy(
        vectors[:, kept][:, ::-1].copy()
    )
