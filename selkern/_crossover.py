"""Which symmetric matrices go to our own eigensolver, and which to torch's."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Row(NamedTuple):
    """Our own kernels take matrices of up to ``size`` in batches of at least ``batch``."""

    batch: int
    size: int


# Where ours are faster, as benchmarks/crossover.py measures it. On a GPU they take every matrix
# that fits the shared memory of a block.
CPU: dict[tuple[torch.dtype, bool], tuple[Row, ...]] = {
    (torch.float32, False): (Row(1, 16), Row(2, 64), Row(4, 224), Row(8, 320)),
    (torch.float32, True): (Row(1, 4), Row(2, 48), Row(4, 64), Row(8, 160), Row(16, 256)),
    (torch.float64, False): (Row(1, 12), Row(2, 32), Row(4, 320)),
    (torch.float64, True): (Row(2, 48), Row(4, 128), Row(8, 192), Row(16, 224), Row(64, 256)),
}

# Of the CUDA kernel, which needs one a row.
_BLOCK_THREADS = 256


def fits_own_kernel(a: Tensor, with_vectors: bool) -> bool:
    """Tell whether our own kernel solves ``a`` ``[B, M, M]``, float32 or float64."""
    batch, size = a.shape[0], a.shape[1]
    available = shared_memory(a.device)
    if available is not None:
        return size <= _BLOCK_THREADS and shared_memory_of(size, a.dtype) <= available
    rows = CPU[a.dtype, with_vectors]
    return any(batch >= row.batch and size <= row.size for row in rows)


def shared_memory(device: torch.device) -> int | None:
    """Return the bytes that a block of a GPU may have; None for a CPU."""
    if device.type != "cuda":
        return None
    properties: Any = torch.cuda.get_device_properties(device)
    return int(properties.shared_memory_per_block_optin)


def shared_memory_of(size: int, dtype: torch.dtype) -> int:
    """Return the bytes that the CUDA kernel takes for a matrix, as in ``csrc/cuda/linalg.h``."""
    return (size * (size | 1) + 6 * size + 2 * _BLOCK_THREADS) * dtype.itemsize
