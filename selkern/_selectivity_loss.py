"""The mean selectivity with its terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from selkern import _checks, _library, reference
from selkern._checks import Activations
from selkern._selectivity_autograd import selectivity_of_maps


def selectivity_of_layers(
    activations: Activations,
    labels: Tensor,
    num_classes: int,
    *,
    unit_dim: int | Sequence[int] | Mapping[str, int],
    eps: float,
    ignore_index: int,
) -> tuple[Tensor, Tensor]:
    """Return :func:`mean_selectivity` and its terms, the detached mean of each layer."""
    tensors, axes = _checks.layers(activations, unit_dim)
    _checks.labels(labels, tensors[0].shape[0], tensors[0].device)
    num_classes = _checks.num_classes(num_classes)
    eps = _checks.epsilon(eps)
    ignore_index = _checks.ignore_index(ignore_index)
    if not _library.COMPILED:
        loss, layers = reference.mean_selectivity_of_layers(
            tensors, labels, num_classes, unit_dim=axes, eps=eps, ignore_index=ignore_index
        )
        return loss, layers.detach()
    loss, layers, _ = selectivity_of_maps(tensors, axes, labels, num_classes, eps, ignore_index)
    return loss, layers
