"""Builds the compiled parts, ``selkern._C`` and ``selkern._cuda``; pyproject.toml has the rest.

``selkern._cuda`` is built where torch has CUDA and there is an nvcc of the same major version.

Environment variables
---------------------
MAX_JOBS
    How many source files to compile at once.
SELKERN_FORCE_CUDA, SELKERN_SKIP_CUDA
    1 stops where the CUDA part cannot be built; 1 leaves it out.
CUDA_HOME, TORCH_CUDA_ARCH_LIST
    The toolkit, and the architectures to compile for, as torch takes them.
SELKERN_SANITIZE
    Sanitizers to build with, as ``-fsanitize`` takes them: ``address,undefined``.
"""

from __future__ import annotations

import json
import os
import platform
import runpy
import sys
import sysconfig
from pathlib import Path
from typing import NoReturn

import setuptools
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
SANITIZERS = os.environ.get("SELKERN_SANITIZE", "")
sys.path.insert(0, str(ROOT / "tools"))
from cuda_build import CudaBuild, Decision, decide, dotted  # noqa: E402

try:
    import pybind11
    import torch
except ImportError as error:
    missing: ImportError | None = error
    decision = Decision()
    BuildExtension = build_ext
else:
    missing = None
    decision = decide(torch, os.environ, SANITIZERS)
    # Before torch looks: it guesses the toolkit's folder from nvcc's, and fails without a GPU.
    os.environ.update(decision.environment())
    from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension

VERSION = runpy.run_path(str(ROOT / "selkern" / "_version.py"))["__version__"]
OLDEST_SETUPTOOLS = (77, 0)
OLDEST_TORCH = (2, 11)
TORCH_TARGET_VERSION = "0x{:02x}{:02x}000000000000".format(*OLDEST_TORCH)
NVCC_FLAGS = ["-O3", "-Xcompiler", "-fvisibility=hidden"]
X86_64 = platform.machine() in ("x86_64", "AMD64")


def say(text: str) -> None:
    print(f"selkern: {text}", flush=True)


def stop(problem: str, cure: str) -> NoReturn:
    raise SystemExit(f"selkern: {problem}: {cure}")


def release(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def require_setuptools() -> None:
    if release(setuptools.__version__) < OLDEST_SETUPTOOLS:
        stop(
            f"the build needs setuptools >= {dotted(OLDEST_SETUPTOOLS)}"
            f" and found {setuptools.__version__}",
            "run `pip install --upgrade setuptools`",
        )


def require_build_tools() -> None:
    if missing is not None:
        stop(
            f"the build needs torch and pybind11 ({missing})",
            "run `pip install torch setuptools pybind11 ninja numpy`"
            " and then `pip install --no-build-isolation .`",
        )
    if release(torch.__version__) < OLDEST_TORCH:
        stop(
            f"the build needs torch >= {dotted(OLDEST_TORCH)} and found {torch.__version__}",
            "run `pip install --upgrade torch`",
        )


def sources(*patterns: str) -> list[str]:
    return sorted(
        str(path.relative_to(ROOT)) for pattern in patterns for path in ROOT.glob(pattern)
    )


def compile_flags() -> list[str]:
    flags = ["-fvisibility=hidden", "-ffp-contract=off", f"-ffile-prefix-map={ROOT}=."]
    # torch's own headers have unused parameters.
    flags += ["-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-psabi", "-Wno-unknown-pragmas"]
    if SANITIZERS:
        # Python is usually compiled with -fwrapv, which would hide signed overflow.
        flags += ["-O1", "-g", "-fno-omit-frame-pointer", "-fno-wrapv"]
        return [*flags, f"-fsanitize={SANITIZERS}", "-fno-sanitize-recover=all"]
    return [*flags, "-O3", "-g0"]


MACROS = [("TORCH_TARGET_VERSION", TORCH_TARGET_VERSION), ("SELKERN_VERSION", VERSION)]


def cpu_extension(cuda: CudaBuild | None) -> setuptools.Extension:
    files = sources("csrc/*.cpp", "csrc/common/*.cpp", "csrc/cpu/*.cpp")
    if missing is not None:
        return setuptools.Extension("selkern._C", files)
    macros = list(MACROS)
    if cuda is not None:
        macros.append(("SELKERN_CUDA_VERSION", cuda.version))
        macros.append(("SELKERN_CUDA_ARCHITECTURES", cuda.architecture_list))
    extension = CppExtension(
        "selkern._C",
        files,
        # First, because the pybind11 that torch 2.11 bundles is too old for the newest Pythons.
        include_dirs=[pybind11.get_include(), str(ROOT / "csrc")],
        define_macros=macros,
        extra_compile_args={"cxx": compile_flags()},
        extra_link_args=[f"-fsanitize={SANITIZERS}"] if SANITIZERS else [],
    )
    # The stable ABI lives in libtorch_cpu; linking more would tie the binary to more of torch.
    extension.libraries = ["torch_cpu"]
    return extension


def cuda_extension(cuda: CudaBuild) -> setuptools.Extension:
    extension = CUDAExtension(
        "selkern._cuda",
        sources("csrc/cuda/*.cu", "csrc/cuda/*.cpp", "csrc/common/*.cpp"),
        include_dirs=[pybind11.get_include(), str(ROOT / "csrc")],
        define_macros=[*MACROS, ("USE_CUDA", None)],
        # No paths for nvcc: torch passes no architectures where a flag holds the letters "arch".
        extra_compile_args={"cxx": compile_flags(), "nvcc": list(NVCC_FLAGS)},
        # Every symbol is in what is linked here, because this is no Python module.
        extra_link_args=["-Wl,-z,defs"],
    )
    # Shared, so that torch and selkern have one CUDA runtime; by its full name, because the
    # toolkit's wheels have no libcudart.so.
    runtime = f":libcudart.so.{cuda.toolkit.version[0]}"
    extension.libraries = ["torch_cpu", "torch_cuda", runtime]
    return extension


class BuildSelkern(BuildExtension):
    def finalize_options(self) -> None:
        # pip gives every build a new folder, in which ninja would compile everything again.
        if self.build_temp is None:
            tags = [sysconfig.get_platform(), sys.implementation.cache_tag, SANITIZERS]
            self.build_temp = str(Path("build", "temp." + "-".join(filter(None, tags))))
        super().finalize_options()

    def run(self) -> None:
        require_build_tools()
        if decision.obstacle is not None:
            stop(decision.obstacle.problem, decision.obstacle.cure)
        self.report()
        super().run()
        self.describe()

    def build_extension(self, extension: setuptools.Extension) -> None:
        # Both extensions have the files of csrc/common, compiled with different flags.
        shared, self.build_temp = self.build_temp, str(Path(self.build_temp, extension.name))
        super().build_extension(extension)
        self.build_temp = shared

    def report(self) -> None:
        say(f"building selkern {VERSION} for Python {platform.python_version()}")
        say(
            f"headers of torch {torch.__version__}, stable ABI of torch {dotted(OLDEST_TORCH)}:"
            " the binary serves every torch from that version on"
        )
        for reason in decision.reasons:
            say(reason)
        if X86_64:
            say("CPU kernels for AVX-512, AVX2 and the baseline, chosen when the package loads")
        else:
            say(f"CPU kernels for the baseline only, because the machine is {platform.machine()}")
        if SANITIZERS:
            say(f"instrumented with {SANITIZERS}, because SELKERN_SANITIZE says so")
        if "MAX_JOBS" in os.environ:
            say(f"{os.environ['MAX_JOBS']} files at once, because MAX_JOBS says so")
        else:
            say("as many files at once as ninja chooses, because MAX_JOBS is not set")

    def describe(self) -> None:
        """Write beside the binary what it was built for, for an import that cannot load it."""
        cuda = decision.build
        description = {
            "selkern": VERSION,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "platform": sysconfig.get_platform(),
            "cuda": cuda and cuda.version,
            "cuda_architectures": [] if cuda is None else cuda.architectures,
        }
        path = Path(self.get_ext_fullpath("selkern._C")).with_name("_C.json")
        path.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        if cuda is None:
            # An earlier build's, which a wheel would otherwise take along.
            Path(self.get_ext_fullpath("selkern._cuda")).unlink(missing_ok=True)


require_setuptools()
if "dist_info" in sys.argv:
    # The first step of pip's install. Later it would have downloaded a torch it cannot use.
    require_build_tools()
# ninja is installed beside Python, which need not be on PATH when no environment is activated.
os.environ["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
extensions = [cpu_extension(decision.build)]
if decision.build is not None:
    extensions.append(cuda_extension(decision.build))
setuptools.setup(ext_modules=extensions, cmdclass={"build_ext": BuildSelkern})
