"""What a run was measured on, without the name of the machine."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy
import torch

import selkern

__all__ = ["capability", "clocks", "commit", "describe"]

FOLDER = Path(__file__).resolve().parent


def describe(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Processor or GPU, and versions."""
    build = selkern.build_info()
    device = torch.device(device)
    description: dict[str, dict[str, Any]] = {
        "machine": {
            "device": device.type,
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
    if device.type == "cuda":
        description["machine"]["gpu"] = _gpu(device)
        description["versions"]["CUDA of torch"] = torch.version.cuda
        description["versions"]["CUDA of selkern"] = build["cuda"]
        description["versions"]["driver"] = _nvidia_smi("driver_version")
    return description


def capability() -> str:
    """Instruction set of selkern's kernels, or that there are none."""
    return selkern.build_info()["cpu_capability"] or "reference (no compiled part)"


CLOCKS = {
    "SM clock, MHz": "clocks.sm",
    "memory clock, MHz": "clocks.mem",
    "temperature, C": "temperature.gpu",
    "power, W": "power.draw",
}


def clocks(device: torch.device | str) -> dict[str, str]:
    """What the GPU runs at while it multiplies matrices for some seconds."""
    # Of its own, because a capture that failed leaves the GPU's usual generator unusable.
    source = torch.Generator(device).manual_seed(0)
    a, b = (
        torch.randn(8192, 8192, generator=source, device=device, dtype=torch.bfloat16)
        for _ in range(2)
    )
    for _ in range(1500):
        a @ b
    values = (_nvidia_smi(",".join(CLOCKS.values())) or "").split(",")
    torch.cuda.synchronize()
    return dict(zip(CLOCKS, (value.strip() for value in values), strict=False))


def commit() -> str | None:
    """The commit of the source folder, where it has one."""
    command = ["git", "-C", str(FOLDER), "describe", "--always", "--dirty", "--abbrev=40"]
    return _output(*command)


def _gpu(device: torch.device) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(device)
    return {
        "name": properties.name,
        "compute capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory, GB": round(properties.total_memory * 1e-9, 1),
        "second-level cache, MB": round(properties.L2_cache_size * 1e-6, 1),
        "highest SM clock, MHz": _nvidia_smi("clocks.max.sm"),
        "power limit, W": _nvidia_smi("power.limit"),
    }


def _nvidia_smi(field: str) -> str | None:
    text = _output("nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits")
    return text.splitlines()[0].strip() if text else None


def _output(*command: str) -> str | None:
    try:
        finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return finished.stdout.strip() or None if finished.returncode == 0 else None


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
