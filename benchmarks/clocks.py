"""How long something takes on a device."""

from __future__ import annotations

from collections.abc import Callable

import torch

from .compare import cpu_nanoseconds

__all__ = ["nanoseconds_on"]


def nanoseconds_on(device: torch.device) -> Callable[[Callable[[], object]], int]:
    """The clock of the device: of the host, or of the GPU."""
    return cuda_nanoseconds if device.type == "cuda" else cpu_nanoseconds


def cuda_nanoseconds(function: Callable[[], object]) -> int:
    """From an idle GPU to the end of the work, with the host's part where the GPU waits for it."""
    start = torch.cuda.Event(enable_timing=True)
    end = torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    function()
    end.record()
    end.synchronize()
    return round(start.elapsed_time(end) * 1e6)
