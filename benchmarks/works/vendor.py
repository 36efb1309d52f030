"""The vendor's batched solver on a GPU, with whatever version of torch."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from ..work import Missing

__all__ = ["eigh", "eigvalsh"]


def eigvalsh(a: Tensor) -> Tensor:
    """Eigenvalues of symmetric matrices, by CuPy."""
    values: Tensor = from_dlpack(_on_stream("eigvalsh", a))
    return values


def eigh(a: Tensor) -> tuple[Tensor, Tensor]:
    """The same with eigenvectors."""
    values, vectors = _on_stream("eigh", a)
    return from_dlpack(values), from_dlpack(vectors)


def _on_stream(name: str, a: Tensor) -> Any:
    try:
        cupy = importlib.import_module("cupy")
    except ImportError as error:
        raise Missing("CuPy cannot be imported") from error
    stream = torch.cuda.current_stream(a.device).cuda_stream
    with cupy.cuda.Device(a.device.index), cupy.cuda.ExternalStream(stream):
        return getattr(cupy.linalg, name)(cupy.from_dlpack(a.detach()))
