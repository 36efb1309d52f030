"""What the GPU can do at best: copy memory and multiply matrices."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import median

import torch

from .clocks import nanoseconds_on

__all__ = ["ceilings"]

MATRIX_SIZE = 8192
COPIED_MEGABYTES = (4096, 512, 64)
REPETITIONS = 20


def ceilings(
    device: torch.device | str,
    copied_megabytes: tuple[int, ...] = COPIED_MEGABYTES,
    matrix_size: int = MATRIX_SIZE,
) -> dict[str, float]:
    """Gigabytes per second of copies, read and written, and the rate of a matrix product."""
    device = torch.device(device)
    rates = {}
    for megabytes in copied_megabytes:
        source = torch.empty(megabytes * 2**18, dtype=torch.int32, device=device).random_()
        target = torch.empty_like(source)
        nanoseconds = _median(partial(target.copy_, source), device)
        rates[f"copy of {megabytes} MiB, GB/s"] = 2 * source.nbytes / nanoseconds
        del source, target
    a, b = (
        torch.randn(matrix_size, matrix_size, device=device, dtype=torch.bfloat16) for _ in range(2)
    )
    nanoseconds = _median(lambda: a @ b, device)
    rates[f"bfloat16 product of {matrix_size} x {matrix_size}, TFLOP/s"] = (
        2 * matrix_size**3 / nanoseconds / 1e3
    )
    return rates


def _median(function: Callable[[], object], device: torch.device) -> float:
    nanoseconds_of = nanoseconds_on(device)
    for _ in range(3):
        function()
    return median(nanoseconds_of(function) for _ in range(REPETITIONS))
