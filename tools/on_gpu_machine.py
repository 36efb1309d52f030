"""The machine that `make cuda` runs on: its GPU, torch and tools."""

from __future__ import annotations

import json
import re
import shutil
import sys
from typing import Any

from on_gpu_run import output_of

PROBE = """
import importlib.util, json, os, torch
names = ["pytest", "pytest_benchmark", "hypothesis", "expecttest", "rich", "sklearn", "pybind11"]
names += ["matplotlib", "tqdm", "ninja", "numpy", "setuptools", "triton", "scipy"]
gpu = torch.cuda.is_available()
print(json.dumps({
    "torch": torch.__version__,
    "CUDA of torch": torch.version.cuda,
    "gpus": torch.cuda.device_count() if gpu else 0,
    "gpu": torch.cuda.get_device_name(0) if gpu else None,
    "capability": ".".join(map(str, torch.cuda.get_device_capability(0))) if gpu else None,
    "missing": [name for name in names if importlib.util.find_spec(name) is None],
}))
"""


def describe() -> dict[str, Any]:
    """Return what there is, by name; None for what is missing."""
    text = output_of([sys.executable, "-c", PROBE], limit=120)
    try:
        probe: dict[str, Any] = json.loads((text or "").splitlines()[-1])
    except (IndexError, ValueError):
        raise SystemExit(f"on_gpu: {sys.executable} cannot import torch") from None
    fields = "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit"
    nvcc = output_of(["nvcc", "--version"])
    release = re.search(r"release ([\d.]+)", nvcc or "")
    return {
        "executable": sys.executable,
        "python": sys.version.split()[0],
        **probe,
        "nvidia-smi": output_of(["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]),
        "nvcc": release and release[1],
        "compute-sanitizer": shutil.which("compute-sanitizer"),
        "ncu": shutil.which("ncu"),
    }


def folder_name(gpu: str | None) -> str:
    """Return what results of a GPU are kept under."""
    words = re.findall(r"[a-z0-9]+", (gpu or "none").lower())
    return "-".join(word for word in words if word not in ("nvidia", "geforce")) or "gpu"
