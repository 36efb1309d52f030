"""Spatial means, by themselves and of a ReLU."""

from __future__ import annotations

import torch
from torch import Tensor

from selkern._layout import result_dtype

__all__ = ["relu_with_mean", "spatial_mean"]


def spatial_mean(x: Tensor, *, unit_dim: int = 1) -> Tensor:
    r"""Average every feature map over its positions.

    .. math:: m_{nc} = \frac{1}{L} \sum_{p=1}^{L} x_{ncp}

    Parameters
    ----------
    x : Tensor
        Activations, samples first, with two to five dimensions.
    unit_dim : int, default 1
        Axis of the units. Every other axis but the first is averaged over.

    Returns
    -------
    Tensor
        Means of shape ``[N, C]``: float64 for float64 input, else float32.

    Examples
    --------
    >>> spatial_mean(torch.tensor([[[1.0, 3.0], [0.0, 4.0]]]))
    tensor([[2., 2.]])
    """
    unit_axis = unit_dim % x.ndim
    positions = [axis for axis in range(1, x.ndim) if axis != unit_axis]
    if not positions:
        return x.to(result_dtype(x.dtype))
    return x.mean(positions, dtype=result_dtype(x.dtype))


def relu_with_mean(x: Tensor, *, unit_dim: int = 1) -> tuple[Tensor, Tensor]:
    r"""Apply ReLU and average every resulting feature map over its positions.

    .. math::

        y = \max(x, 0), \qquad m_{nc} = \frac{1}{L} \sum_{p=1}^{L} y_{ncp}

    Parameters
    ----------
    x : Tensor
        Pre-activations, samples first, with two to five dimensions.
    unit_dim : int, default 1
        Axis of the units.

    Returns
    -------
    y : Tensor
        ``relu(x)``, with the shape and the dtype of `x`.
    m : Tensor
        ``spatial_mean(y)``, of shape ``[N, C]``.

    Examples
    --------
    >>> y, m = relu_with_mean(torch.tensor([[[-1.0, 3.0], [0.0, 4.0]]]))
    >>> m
    tensor([[1.5000, 2.0000]])
    """
    y = torch.relu(x)
    return y, spatial_mean(y, unit_dim=unit_dim)
