"""The GPU that some tests need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

import selkern

CUDA = torch.device("cuda")
NEEDS_GPU = pytest.mark.skipif(
    not torch.cuda.is_available() or not selkern.build_info()["cuda_loaded"],
    reason="no GPU, or selkern has no CUDA part",
)


@contextmanager
def no_synchronisation() -> Iterator[None]:
    """Let torch raise where the host would wait for the GPU."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
