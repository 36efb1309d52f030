"""Builds the compiled part, ``selkern._C``; pyproject.toml holds everything else.

Environment variables
---------------------
MAX_JOBS
    How many source files to compile at once.
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

try:
    import pybind11
    import torch
    from torch.utils.cpp_extension import BuildExtension, CppExtension
except ImportError as error:
    missing: ImportError | None = error
    BuildExtension = build_ext
else:
    missing = None

ROOT = Path(__file__).resolve().parent
VERSION = runpy.run_path(str(ROOT / "selkern" / "_version.py"))["__version__"]
OLDEST_SETUPTOOLS = (77, 0)
OLDEST_TORCH = (2, 11)
TORCH_TARGET_VERSION = "0x{:02x}{:02x}000000000000".format(*OLDEST_TORCH)
SANITIZERS = os.environ.get("SELKERN_SANITIZE", "")
X86_64 = platform.machine() in ("x86_64", "AMD64")


def say(text: str) -> None:
    print(f"selkern: {text}", flush=True)


def stop(problem: str, cure: str) -> NoReturn:
    raise SystemExit(f"selkern: {problem}: {cure}")


def release(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def dotted(release: tuple[int, int]) -> str:
    return f"{release[0]}.{release[1]}"


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


def cpu_extension() -> setuptools.Extension:
    files = sources("csrc/*.cpp", "csrc/cpu/*.cpp")
    if missing is not None:
        return setuptools.Extension("selkern._C", files)
    extension = CppExtension(
        "selkern._C",
        files,
        # First, because the pybind11 that torch 2.11 bundles is too old for the newest Pythons.
        include_dirs=[pybind11.get_include(), str(ROOT / "csrc")],
        define_macros=[
            ("TORCH_TARGET_VERSION", TORCH_TARGET_VERSION),
            ("SELKERN_VERSION", VERSION),
        ],
        extra_compile_args={"cxx": compile_flags()},
        extra_link_args=[f"-fsanitize={SANITIZERS}"] if SANITIZERS else [],
    )
    # The stable ABI lives in libtorch_cpu; linking more would tie the binary to more of torch.
    extension.libraries = ["torch_cpu"]
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
        self.report()
        super().run()
        self.describe()

    def report(self) -> None:
        say(f"building selkern {VERSION} for Python {platform.python_version()}")
        say(
            f"headers of torch {torch.__version__}, stable ABI of torch {dotted(OLDEST_TORCH)}:"
            " the binary serves every torch from that version on"
        )
        say("CPU only, because this version of selkern has no CUDA kernels")
        if X86_64:
            say("kernels for AVX-512, AVX2 and the baseline, chosen when the package loads")
        else:
            say(f"kernels for the baseline only, because the machine is {platform.machine()}")
        if SANITIZERS:
            say(f"instrumented with {SANITIZERS}, because SELKERN_SANITIZE says so")
        if "MAX_JOBS" in os.environ:
            say(f"{os.environ['MAX_JOBS']} files at once, because MAX_JOBS says so")
        else:
            say("as many files at once as ninja chooses, because MAX_JOBS is not set")

    def describe(self) -> None:
        """Write beside the binary what it was built for, for an import that cannot load it."""
        description = {
            "selkern": VERSION,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "platform": sysconfig.get_platform(),
        }
        for extension in self.extensions:
            name = extension.name.rpartition(".")[2]
            path = Path(self.get_ext_fullpath(extension.name)).with_name(f"{name}.json")
            path.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


require_setuptools()
if "dist_info" in sys.argv:
    # The first step of pip's install. Later it would have downloaded a torch it cannot use.
    require_build_tools()
# ninja is installed beside Python, which need not be on PATH when no environment is activated.
os.environ["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
setuptools.setup(ext_modules=[cpu_extension()], cmdclass={"build_ext": BuildSelkern})
