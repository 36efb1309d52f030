"""The networks of the study: fully connected and convolutional, with tanh."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from selkern.data import ImageSet

__all__ = [
    "Architecture",
    "Normalization",
    "Whitening",
    "hidden_layers",
    "hidden_widths",
    "make_network",
]

BATCH = 1000
KERNEL = 3


@dataclass(frozen=True)
class Architecture:
    """Hidden layers: convolutions of 3 x 3 with max-pooling of 2 x 2, then fully connected ones."""

    units: tuple[int, ...]
    """Of the fully connected layers."""
    channels: tuple[int, ...] = ()
    """Of the convolutions, which come first."""
    padding: int = 0
    batch_norm: bool = False


class Normalization(nn.Module):
    r"""Brings images ``[N, C, H, W]`` to mean 0 and deviation 1 in each channel.

    .. math:: y = (x - m) / s

    with the fixed mean and standard deviation of the training images. It is part of the network, so
    that attacks see images in [0, 1].
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("deviation", torch.ones(channels, 1, 1))

    def fit(self, images: ImageSet) -> None:
        """Take mean and standard deviation of all pixels; a constant channel keeps its scale."""
        mean = _mean_over(images, lambda x: x)
        deviation = _mean_over(images, lambda x: (x - mean).square()).sqrt()
        self.mean.copy_(mean)
        self.deviation.copy_(torch.where(deviation > 0, deviation, 1.0))

    def forward(self, images: Tensor) -> Tensor:
        """Normalize images."""
        return (images - self.mean) / self.deviation


def _mean_over(images: ImageSet, value: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean of a value ``[N, C, H, W]`` of all pixels, ``[C, 1, 1]``."""
    means = [value(x.double()).mean((2, 3)).sum(0) for x, _ in images.batches(BATCH)]
    return (torch.stack(means).sum(0) / len(images))[:, None, None]


class Whitening(nn.Module):
    r"""Gives activations ``[N, ...]``, flattened, mean 0 and covariance 1.

    .. math:: y = L^{-1} (x - m), \qquad L L^T = C + 10^{-5} I

    with the mean :math:`m` and the covariance :math:`C` of the batch, and in eval mode with running
    averages of both. That a layer is whitened after its activation, with averages like those of
    BatchNorm, is our reading of the paper, of which only the Cholesky factor and the constant are
    known. Moments and factor are taken in float64.

    Parameters
    ----------
    width : int
        Number of units.
    eps : float
        Added to the covariance's diagonal.
    momentum : float
        Share of the newest batch in the running averages.
    """

    mean: Tensor
    covariance: Tensor

    def __init__(self, width: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(width, dtype=torch.float64))
        self.register_buffer("covariance", torch.eye(width, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Whiten a batch."""
        rows = x.flatten(1).double()
        mean, covariance = self._moments(rows) if self.training else (self.mean, self.covariance)
        regular = covariance + self.eps * torch.eye(
            rows.shape[1], dtype=rows.dtype, device=x.device
        )
        factor = torch.linalg.cholesky(regular)
        white = torch.linalg.solve_triangular(factor, (rows - mean).T, upper=False).T
        return white.to(x.dtype).reshape(x.shape)

    def _moments(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        mean = rows.mean(0)
        centered = rows - mean
        covariance = centered.T @ centered / (len(rows) - 1)
        with torch.no_grad():
            self.mean.lerp_(mean, self.momentum)
            self.covariance.lerp_(covariance, self.momentum)
        return mean, covariance


def make_network(
    architecture: Architecture,
    image_shape: tuple[int, int, int],
    num_classes: int,
    *,
    whitened: bool = False,
) -> nn.Sequential:
    """Make a network for images ``[N, C, H, W]`` in [0, 1].

    The outputs of its hidden layers ``hidden1``, ``hidden2`` and so on are what is regularized and
    measured: after tanh, pooling and whitening, where there are any.
    """
    widths = hidden_widths(architecture, image_shape)
    channels, units = image_shape[0], image_shape[0] * image_shape[1] * image_shape[2]
    model: OrderedDict[str, nn.Module] = OrderedDict(normalization=Normalization(channels))
    for number, width in enumerate(widths, 1):
        if number <= len(architecture.channels):
            after = architecture.channels[number - 1]
            layers = _convolution(channels, after, architecture)
            channels = after
        else:
            layers = _fully_connected(units, width, architecture)
        if whitened:
            layers["whitening"] = Whitening(width)
        model[f"hidden{number}"] = nn.Sequential(layers)
        units = width
    model["flatten"] = nn.Flatten()
    model["classifier"] = nn.Linear(units, num_classes)
    return nn.Sequential(model)


def _convolution(before: int, after: int, of: Architecture) -> OrderedDict[str, nn.Module]:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["convolution"] = nn.Conv2d(before, after, KERNEL, padding=of.padding)
    if of.batch_norm:
        layers["norm"] = nn.BatchNorm2d(after)
    layers["tanh"] = nn.Tanh()
    layers["pool"] = nn.MaxPool2d(2)
    return layers


def _fully_connected(before: int, after: int, of: Architecture) -> OrderedDict[str, nn.Module]:
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    layers["linear"] = nn.Linear(before, after)
    if of.batch_norm:
        layers["norm"] = nn.BatchNorm1d(after)
    layers["tanh"] = nn.Tanh()
    return layers


def hidden_widths(architecture: Architecture, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
    """Number of units of each hidden layer, flattened.

    Raises
    ------
    ValueError
        If the images are too small for the convolutions.
    """
    height, width = image_shape[1:]
    widths = []
    for channels in architecture.channels:
        height, width = (
            (size + 2 * architecture.padding - KERNEL + 1) // 2 for size in (height, width)
        )
        if height < 1 or width < 1:
            raise ValueError(
                f"images of {image_shape[1]} x {image_shape[2]} are too small for "
                f"{len(architecture.channels)} convolutions with max-pooling"
            )
        widths.append(channels * height * width)
    return (*widths, *architecture.units)


def hidden_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The hidden layers by name."""
    return {name: layer for name, layer in model.named_children() if name.startswith("hidden")}
