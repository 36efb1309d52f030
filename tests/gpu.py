"""The GPU that some tests need."""

from __future__ import annotations

import pytest
import torch

import selkern

CUDA = torch.device("cuda")
NEEDS_GPU = pytest.mark.skipif(
    not torch.cuda.is_available() or not selkern.build_info()["cuda_loaded"],
    reason="no GPU, or selkern has no CUDA part",
)
