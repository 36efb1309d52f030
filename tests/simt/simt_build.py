"""Compiles CUDA sources with the host's compiler, for the runtime that executes them on the CPU.

A variant is a list of sanitizers as ``-fsanitize`` takes them, or the empty string. What is built
lies in ``build/simt``, and is compiled again only where a source, a header or a flag has changed.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import platform
import shlex
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path("tests", "simt")
RUNTIME = sorted(str(path.relative_to(ROOT)) for path in (ROOT / HERE / "runtime").glob("*.cpp"))
COMPILER = shlex.split(os.environ.get("CXX", "g++"))

FLAGS = [
    *("-std=c++20", "-O2", "-g1", "-fPIC", "-Wall", "-Wextra"),
    # As on the GPU, memory may be read as a type that it was not written as.
    "-fno-strict-aliasing",
    "-ffp-contract=off",
    *("-fvisibility=hidden", "-Wno-unknown-pragmas", "-Wno-psabi"),
    # CUDA's threadIdx is unsigned and its warpSize is not; bounds are the sanitizers' matter.
    *("-Wno-sign-compare", "-Wno-array-bounds"),
    *("-I", f"{HERE}/include", "-I", "csrc"),
]


def default_variant() -> str:
    return os.environ.get("SELKERN_SIMT_SANITIZE", "")


@dataclass(frozen=True)
class Source:
    path: str
    flags: tuple[str, ...] = ()
    # The runtime tells the sanitizers what threads do, so nothing of it may look like one.
    is_runtime: bool = False

    def command(self, variant: str) -> list[str]:
        command = [*COMPILER, *FLAGS, *self.flags, "-x", "c++", "-c", self.path]
        if self.is_runtime:
            names = [f"-DSIMT_{name.upper()}_SANITIZER" for name in variant.split(",") if name]
            return [*command, *names]
        if variant:
            command += [f"-fsanitize={variant}", "-fno-sanitize-recover=all"]
            command += ["-O1", "-fno-omit-frame-pointer"]
        return command


def runtime(*flags: str) -> list[Source]:
    return [Source(path, flags, is_runtime=True) for path in RUNTIME]


def digest(text: str, files: Sequence[Path] = ()) -> str:
    state = hashlib.sha256(text.encode())
    for path in files:
        state.update(path.read_bytes() if path.exists() else b"-")
    return state.hexdigest()


def dependencies(depfile: Path) -> list[Path]:
    if not depfile.exists():
        return []
    names = depfile.read_text().replace("\\\n", " ").partition(":")[2]
    return [ROOT / name for name in names.split()]


def run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    sys.stderr.write(done.stderr)
    if done.returncode != 0:
        raise RuntimeError(f"{shlex.join(command)}\n{done.stderr}")


def compile_source(source: Source, variant: str, folder: Path) -> Path:
    command = source.command(variant)
    name = f"{Path(source.path).name}-{digest(shlex.join(command))[:8]}"
    target, depfile, stamp = (folder / f"{name}{end}" for end in (".o", ".d", ".stamp"))
    if target.exists() and stamp.exists():
        current = digest("", dependencies(depfile))
        if current == stamp.read_text():
            return target
    stamp.unlink(missing_ok=True)
    started = time.time()
    run([*command, "-MMD", "-MF", str(depfile), "-o", str(target)])
    files = dependencies(depfile)
    # What changed meanwhile may or may not have been compiled.
    if all(path.stat().st_mtime < started for path in files):
        stamp.write_text(digest("", files))
    return target


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build(name: str, sources: list[Source], variant: str, link_flags: Sequence[str] = ()) -> Path:
    """Compile and link sources."""
    folder = ROOT / "build" / "simt" / (variant.replace(",", "-") or "plain")
    # The first copy of an inline function counts: the runtime's own, which is not instrumented.
    sources = sorted(sources, key=lambda source: not source.is_runtime)
    with locked(folder), ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(lambda source: compile_source(source, variant, folder), sources))
        target, stamp = folder / name, folder / f"{name}.stamp"
        command = [*COMPILER, *map(str, objects), "-o", str(target), *link_flags, "-ldl"]
        if variant:
            command.append(f"-fsanitize={variant}")
        current = digest(shlex.join(command), objects)
        if not (target.exists() and stamp.exists() and stamp.read_text() == current):
            target.unlink(missing_ok=True)  # a process that has it loaded keeps what it loaded
            run(command)
            stamp.write_text(current)
    return target


def torch_flags() -> tuple[list[str], list[str]]:
    import pybind11
    import torch
    from torch.utils.cpp_extension import include_paths, library_paths

    paths = [pybind11.get_include(), sysconfig.get_path("include"), *include_paths()]
    includes = [flag for path in paths for flag in ("-isystem", path)]
    libraries = [f"-L{path}" for path in library_paths()]
    # The version, because headers of the system are not looked at.
    compiling = [
        "-DTORCH_TARGET_VERSION=0x020b000000000000",
        f"-DTORCH_OF_HEADERS={torch.__version__}",
    ]
    return [*compiling, *includes], [*libraries, "-ltorch_cpu", "-lc10"]


def build_operators(variant: str | None = None) -> Path:
    """Build the operators whose kernels are executed on the CPU."""
    compiling, linking = torch_flags()
    on_gpu = {"csrc/cuda/device.cpp", "csrc/cuda/register.cpp", "csrc/common/allocate.cpp"}
    paths = [
        str(path.relative_to(ROOT))
        for pattern in ("csrc/cuda/*.cu", "csrc/cuda/*.cpp", "csrc/common/*.cpp")
        for path in ROOT.glob(pattern)
    ]
    paths = [path for path in paths if path not in on_gpu]
    paths += [f"{HERE}/{name}.cpp" for name in ("device", "allocate", "register")]
    sources = [
        Source(path, () if path.endswith(".cu") else tuple(compiling)) for path in sorted(paths)
    ]
    variant = default_variant() if variant is None else variant
    return build(
        "operators.so", [*runtime(), *sources], variant, ["-shared", "-Wl,--no-undefined", *linking]
    )


def cases(*patterns: str) -> list[Source]:
    paths = sorted(path for pattern in patterns for path in (ROOT / HERE).glob(pattern))
    return [Source(str(path.relative_to(ROOT)), ("-I", f"{HERE}/kernels")) for path in paths]


def build_bugs(variant: str) -> Path:
    """Build a program that runs the kernels of ``bugs`` that its arguments name."""
    return build("bugs", [*runtime(), *cases("bugs/*.cu", "kernels/*.cpp")], variant)


def build_cases(name: str = "cases.so", *runtime_flags: str) -> Path:
    """Build a library of the kernels of ``bugs`` and ``kernels``."""
    sources = [*runtime(*runtime_flags), *cases("bugs/*.cu", "kernels/*.cpp", "kernels/*.cu")]
    return build(name, sources, "", ["-shared", "-Wl,--no-undefined"])


def without_address_randomisation() -> list[str]:
    """Start of a command line: some kernels place a program where ThreadSanitizer cannot be."""
    prefix = ["setarch", platform.machine(), "-R"]
    try:
        subprocess.run([*prefix, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return prefix


def main() -> None:
    parser = argparse.ArgumentParser(description=build_operators.__doc__)
    parser.add_argument("--variant", default=default_variant(), help="sanitizers, if any")
    print(build_operators(parser.parse_args().variant))


if __name__ == "__main__":
    main()
