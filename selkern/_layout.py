"""Maps ``[N, C, ...]``: the unit axis, the memory format, and gradients that fill a map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


def units_second(x: Tensor, unit_dim: int) -> Tensor:
    """View ``x`` with the unit axis second."""
    return x if unit_dim == 1 else x.movedim(unit_dim, 1)


def units_back(x: Tensor, unit_dim: int) -> Tensor:
    """Undo :func:`units_second`."""
    return x if unit_dim == 1 else x.movedim(1, unit_dim)


def result_dtype(*dtypes: torch.dtype) -> torch.dtype:
    """Return float64 if it is among ``dtypes``, otherwise float32."""
    return torch.float64 if torch.float64 in dtypes else torch.float32


def is_channels_last(x: Tensor) -> bool:
    """Tell whether ``x`` is dense with the units of a position side by side."""
    return not x.is_contiguous() and x.movedim(1, -1).is_contiguous()


class Map(NamedTuple):
    """What the gradient of a tensor of feature maps must look like."""

    shape: Sequence[int]
    dtype: torch.dtype
    is_leaf: bool
    channels_last: bool

    @classmethod
    def of(cls, x: Tensor, is_leaf: bool) -> Map:
        """Describe ``x``, which leaves the graph if ``is_leaf``."""
        return cls(x.shape, x.dtype, is_leaf, is_leaf and is_channels_last(x))

    @property
    def positions(self) -> int:
        """Number of positions of each map."""
        return math.prod(self.shape[2:])

    def filled(self, values: Tensor) -> Tensor:
        """Spread ``values`` ``[N, C]`` over the positions.

        Inside a graph this is an expanded view, so that nothing is written. Where the gradient is
        handed to the user it is dense, because in-place operations refuse overlapping elements.
        """
        if values.dtype != self.dtype:
            values = values.to(self.dtype)
        if len(self.shape) > 2:
            values = values[(...,) + (None,) * (len(self.shape) - 2)].expand(self.shape)
        if not self.is_leaf:
            return values
        if self.channels_last:
            return values.movedim(1, -1).contiguous().movedim(-1, 1)
        return values.contiguous()
