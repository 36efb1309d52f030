"""What a run was measured on, without the name of the machine."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import numpy
import torch

import selkern

__all__ = ["capability", "describe"]


def describe() -> dict[str, Any]:
    """Processor, threads and versions."""
    build = selkern.build_info()
    return {
        "machine": {
            "device": "cpu",
            "processor": _processor(),
            "architecture": platform.machine(),
            "cores": _usable_cores(),
            "threads": torch.get_num_threads(),
            "capability": capability(),
            "capability of torch": torch.backends.cpu.get_cpu_capability(),
        },
        "versions": {
            "python": platform.python_version(),
            "numpy": numpy.__version__,
            "torch": torch.__version__,
            "selkern": selkern.__version__,
            "compiler": build["compiler"],
        },
    }


def capability() -> str:
    """Instruction set of selkern's kernels, or that there are none."""
    return selkern.build_info()["cpu_capability"] or "reference (no compiled part)"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
