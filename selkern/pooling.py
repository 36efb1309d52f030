"""Spatial means of feature maps, alone and fused into the ReLU before them."""

from __future__ import annotations

import torch
from torch import Tensor

from selkern import _checks, _library, _pooling_autograd, reference

__all__ = ["relu_with_mean", "spatial_mean"]


def _is_left_to_the_compiler(x: Tensor) -> bool:
    # On a GPU inductor makes one pass of plain operations and of what comes before them, where an
    # operator that it cannot look into reads the maps once more.
    return torch.compiler.is_compiling() and x.is_cuda


def spatial_mean(x: Tensor, *, unit_dim: int = 1) -> Tensor:
    r"""Mean of each unit over the positions of its map.

    .. math:: m_{nc} = \frac{1}{P} \sum_p x_{ncp}

    Sums are taken in float64 whatever the dtype of ``x``, on CUDA in compensated float32 unless it
    is float64, and within ``torch.compile`` there as the compiler takes them. The gradient is an
    expanded view that takes no memory.

    Parameters
    ----------
    x : Tensor
        Activations ``[N, C]``, ``[N, C, L]``, ``[N, C, H, W]`` or ``[N, C, D, H, W]``; float16,
        bfloat16, float32 or float64; contiguous or channels-last, read without a copy. ``[N, C]``
        counts as maps of one position.
    unit_dim : int, default 1
        Axis of the units; ``-1`` for tokens ``[N, T, C]``. Not 0, the axis of the samples.

    Returns
    -------
    Tensor
        Means ``[N, C]``, float64 for float64 ``x`` and float32 otherwise; NaN for maps without
        positions.

    Raises
    ------
    TypeError
        If ``x`` is not a floating tensor or ``unit_dim`` not an integer.
    ValueError
        If ``x`` has fewer than 2 or more than 5 axes, or ``unit_dim`` is not one of them.

    Examples
    --------
    >>> spatial_mean(torch.tensor([[[1.0, 2.0, 6.0]]]))
    tensor([[3.]])
    """
    _checks.activation("x", x)
    axis = _checks.unit_axis("unit_dim", unit_dim, x)
    if not _library.COMPILED or _is_left_to_the_compiler(x):
        return reference.spatial_mean(x, unit_dim=axis)
    return _pooling_autograd.spatial_mean(x, axis)


def relu_with_mean(x: Tensor, *, unit_dim: int = 1) -> tuple[Tensor, Tensor]:
    r"""ReLU, and the spatial mean of its result, in one pass over the data.

    .. math:: y = \max(x, 0), \qquad m_{nc} = \frac{1}{P} \sum_p y_{ncp}

    Both gradients arrive at one node, :math:`[y > 0] (g_y + g_m / P)`, in the pass that the
    backward of a ReLU takes anyway. At NaN it behaves as :func:`torch.relu`: the value stays NaN
    and the gradient passes.

    Parameters
    ----------
    x : Tensor
        Activations, as for :func:`spatial_mean`.
    unit_dim : int, default 1
        Axis of the units, as for :func:`spatial_mean`.

    Returns
    -------
    y : Tensor
        ``relu(x)``, with the dtype and memory format of ``x``.
    m : Tensor
        Means ``[N, C]`` of ``y``, float64 for float64 ``x`` and float32 otherwise. They go into
        :func:`mean_selectivity` as they are.

    Raises
    ------
    TypeError
        If ``x`` is not a floating tensor or ``unit_dim`` not an integer.
    ValueError
        If ``x`` has fewer than 2 or more than 5 axes, or ``unit_dim`` is not one of them.

    Examples
    --------
    >>> y, m = relu_with_mean(torch.tensor([[[-1.0, 2.0, 4.0]]]))
    >>> y
    tensor([[[0., 2., 4.]]])
    >>> m
    tensor([[2.]])
    """
    _checks.activation("x", x)
    axis = _checks.unit_axis("unit_dim", unit_dim, x)
    if not _library.COMPILED or _is_left_to_the_compiler(x):
        return reference.relu_with_mean(x, unit_dim=axis)
    return _pooling_autograd.relu_with_mean(x, axis)


def relu_with_mean_(x: Tensor) -> Tensor:
    """Apply ReLU to ``x`` in place and return the spatial means of the result.

    Autograd follows the fused form in plain eager mode only, and not where ``x`` is a view; there
    it falls back on two passes.
    """
    is_eager = not (torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active())
    if not _library.COMPILED or not is_eager or x._is_view():
        return spatial_mean(torch.relu_(x))
    return _pooling_autograd.relu_with_mean_(x)
