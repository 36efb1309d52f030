"""Loads the compiled part of the package, or says why it cannot be loaded."""

from __future__ import annotations

import importlib
import json
import os
import platform
import re
import sysconfig
import warnings
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import NoReturn, TypedDict

from selkern._version import __version__

_PACKAGE = Path(__file__).parent
_OLDEST_TORCH = "2.11"
_INSTALL = (
    "in selkern's source folder, `pip install torch setuptools pybind11 ninja numpy`"
    " and then `pip install --no-build-isolation .`"
)
_WITHOUT_CUDA = "SELKERN_SKIP_CUDA=1 builds it for CPU tensors alone"


class BuildInfo(TypedDict):
    """What the package was built with and what it runs on."""

    version: str
    compiled: bool
    torch: str | None
    torch_running: str
    compiler: str | None
    cuda: str | None
    cuda_architectures: list[str]
    cuda_loaded: bool
    cpu_capabilities: list[str]
    cpu_capability: str | None


def _built_for() -> str:
    try:
        built = json.loads((_PACKAGE / "_C.json").read_text(encoding="utf-8"))
        cuda = f"CUDA {built['cuda']}" if built.get("cuda") else "no CUDA"
        return (
            f"selkern {built['selkern']}, torch >= {_OLDEST_TORCH} (headers of {built['torch']}),"
            f" {cuda}, Python {built['python']}, {built['platform']}"
        )
    except (OSError, ValueError, KeyError):
        return f"torch >= {_OLDEST_TORCH}; no _C.json says more"


def _import_error(problem: str, torch_here: str, *cures: str) -> ImportError:
    lines = [
        problem,
        f"built for: {_built_for()}",
        f"here: selkern {__version__}, torch {torch_here},"
        f" Python {platform.python_version()}, {sysconfig.get_platform()}",
        *(f"cure: {cure}" for cure in cures),
    ]
    return ImportError("\n  ".join(lines))


def _torch_version() -> str:
    """Return the version of torch, refusing one that selkern cannot run on."""
    cure = f"`pip install 'torch>={_OLDEST_TORCH}'`"
    try:
        import torch
    except ImportError as error:
        problem = f"selkern needs torch >= {_OLDEST_TORCH}, which cannot be imported: {error}"
        raise _import_error(problem, "missing", cure) from error
    version = str(torch.__version__)
    if _release(version) < _release(_OLDEST_TORCH):
        problem = f"selkern needs torch >= {_OLDEST_TORCH}, got {version}"
        raise _import_error(problem, version, cure)
    return version


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def _missing() -> str:
    """Return the sentence about a compiled part that is not there."""
    others = sorted(path.name for path in _PACKAGE.glob("_C.*.so"))
    found = f"; what is there is for another Python: {', '.join(others)}" if others else ""
    return f"selkern's compiled part, selkern._C, is missing from {_PACKAGE}{found}"


def _cures_of_missing() -> list[str]:
    cures = [_INSTALL, "SELKERN_ALLOW_REFERENCE=1 runs on plain PyTorch, much slower"]
    if (_PACKAGE.parent / "setup.py").exists():
        cures.insert(
            0,
            "this is the source folder, which hides an installed selkern:"
            " start Python in another folder, or install with -e",
        )
    return cures


def _load(torch_here: str) -> ModuleType | None:
    """Import ``selkern._C``; None where it is missing and the reference is allowed."""
    if PathFinder.find_spec("selkern._C", [str(_PACKAGE)]) is None:
        if os.environ.get("SELKERN_ALLOW_REFERENCE") == "1":
            warnings.warn(
                f"{_missing()}; running the much slower selkern.reference instead,"
                " because SELKERN_ALLOW_REFERENCE=1",
                RuntimeWarning,
                stacklevel=2,
            )
            return None
        raise _import_error(_missing(), torch_here, *_cures_of_missing())
    try:
        extension = importlib.import_module("selkern._C")
    except ImportError as error:
        problem = f"selkern's compiled part cannot be loaded: {error}"
        raise _import_error(problem, torch_here, _INSTALL) from error
    version = extension.build_info()["version"]
    if version != __version__:
        problem = f"selkern's compiled part is version {version}, its Python part {__version__}"
        raise _import_error(problem, torch_here, _INSTALL)
    return extension


def _load_cuda(extension: ModuleType, torch_here: str) -> bool:
    """Load ``selkern._cuda``, whose operators torch then calls for CUDA tensors."""
    import torch

    built = extension.build_info()["cuda"]
    here = torch.version.cuda
    spec = PathFinder.find_spec("selkern._cuda", [str(_PACKAGE)])
    if built is None or here is None or spec is None:
        return False
    torch_here = f"{torch_here} with CUDA {here}"
    if _release(built)[0] != _release(here)[0]:
        problem = f"selkern's CUDA part was built for CUDA {built}, and this torch has CUDA {here}"
        cure = f"install a torch for CUDA {_release(built)[0]}"
        raise _import_error(problem, torch_here, f"{_INSTALL}, to build it for this torch", cure)
    try:
        torch.ops.load_library(spec.origin)
    except (OSError, RuntimeError) as error:
        # Newer torch says only that it could not.
        problem = f"selkern's CUDA part cannot be loaded: {error.__cause__ or error}"
        raise _import_error(problem, torch_here, _INSTALL, _WITHOUT_CUDA) from error
    return True


def _refuse_cuda_tensors() -> object:
    """Register, in place of the CUDA kernels, an error that names the cure."""
    import torch

    def refuse(*args: object, **options: object) -> NoReturn:
        raise NotImplementedError(
            "selkern was installed without its CUDA part, and got a CUDA tensor: build it again"
            " where torch and nvcc are of the same CUDA major version (in selkern's source folder,"
            " `SELKERN_FORCE_CUDA=1 pip install --no-build-isolation .` says what is missing),"
            " or move the tensors to the CPU"
        )

    library = torch.library.Library("selkern", "IMPL")
    for name in torch._C._dispatch_get_all_op_names():
        if name.startswith("selkern::"):
            library.impl(name.removeprefix("selkern::"), refuse, "CUDA")
    return library


def _choose_cpu_capability(extension: ModuleType) -> None:
    name = os.environ.get("SELKERN_CPU_CAPABILITY")
    if not name:
        return
    try:
        extension.set_cpu_capability(name)
    except ValueError as error:
        available = ", ".join(extension.supported_cpu_capabilities())
        raise ImportError(
            f"SELKERN_CPU_CAPABILITY must be one of {available} on this machine, got {name!r}"
        ) from error


_torch_here = _torch_version()
_extension = _load(_torch_here)
if _extension is not None:
    _choose_cpu_capability(_extension)
_cuda_loaded = _extension is not None and _load_cuda(_extension, _torch_here)
if _extension is not None and not _cuda_loaded:
    # Kept, because the registrations end with the object that made them.
    _refusals = _refuse_cuda_tensors()

COMPILED = _extension is not None


def build_info() -> BuildInfo:
    """
    Return what the package was built with and what it runs on.

    Returns
    -------
    dict
        ``version``: of selkern. ``compiled``: whether the compiled part is in use.
        ``torch``: whose headers it was built with; ``torch_running``: the one it runs on.
        ``compiler``. ``cuda``: version that its CUDA part was built with, or None;
        ``cuda_architectures``: what that was built for; ``cuda_loaded``: whether it is in use.
        ``cpu_capabilities``: the instruction sets it has kernels for; ``cpu_capability``: the one
        in use. Without the compiled part, what is known only of it is None or empty.
    """
    info = BuildInfo(
        version=__version__,
        compiled=COMPILED,
        torch=None,
        torch_running=_torch_here,
        compiler=None,
        cuda=None,
        cuda_architectures=[],
        cuda_loaded=_cuda_loaded,
        cpu_capabilities=[],
        cpu_capability=None,
    )
    if _extension is not None:
        info.update(_extension.build_info())
        info["cpu_capability"] = _extension.cpu_capability()
    return info
