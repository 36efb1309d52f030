"""The selectivity loss as a user would write it, without selkern."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["mean_selectivity_page"]


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
