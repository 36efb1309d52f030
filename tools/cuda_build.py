"""Decides whether the build has a CUDA part, with which toolkit and for which architectures."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Compute capabilities, as in TORCH_CUDA_ARCH_LIST.
OLDEST_ARCHITECTURE = (8, 0)
DEFAULT_ARCHITECTURES = ((8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0))
USUAL_HOME = Path("/usr/local/cuda")

Version = tuple[int, int]


class CannotBuild(Exception):
    """The CUDA part cannot be built as asked: a problem and its cure."""

    def __init__(self, problem: str, cure: str) -> None:
        super().__init__(f"{problem}: {cure}")
        self.problem = problem
        self.cure = cure


@dataclass(frozen=True)
class Toolkit:
    """A CUDA toolkit: its root folder and the version of its nvcc."""

    home: Path
    version: Version

    @property
    def nvcc(self) -> Path:
        return self.home / "bin" / "nvcc"


@dataclass(frozen=True)
class CudaBuild:
    """What the CUDA part is built with and for."""

    toolkit: Toolkit
    architectures: tuple[str, ...]

    @property
    def version(self) -> str:
        return dotted(self.toolkit.version)

    @property
    def architecture_list(self) -> str:
        """The architectures as TORCH_CUDA_ARCH_LIST takes them."""
        return ";".join(self.architectures)


@dataclass(frozen=True)
class Decision:
    """
    What to do about the CUDA part.

    Either what to build it with, or None for a CPU-only build, and the sentences that say why; or
    the obstacle that a build must stop at.
    """

    build: CudaBuild | None = None
    reasons: tuple[str, ...] = ()
    obstacle: CannotBuild | None = None

    def environment(self) -> dict[str, str]:
        """Return the variables with which torch comes to the same decision."""
        if self.build is None:
            return {}
        return {
            "CUDA_HOME": str(self.build.toolkit.home),
            "TORCH_CUDA_ARCH_LIST": self.build.architecture_list,
        }


def dotted(version: Version) -> str:
    return f"{version[0]}.{version[1]}"


def decide(torch: Any, environment: Mapping[str, str], sanitizers: str = "") -> Decision:
    """Decide from the torch that is installed, the toolkits and the environment."""
    try:
        force = _is_set(environment, "SELKERN_FORCE_CUDA")
        skip = _is_set(environment, "SELKERN_SKIP_CUDA")
        if force and skip:
            problem = "SELKERN_FORCE_CUDA=1 and SELKERN_SKIP_CUDA=1 exclude each other"
            raise CannotBuild(problem, "unset one of them")
        if skip:
            return Decision(reasons=("CPU only, because SELKERN_SKIP_CUDA=1",))
        return _decide(torch, environment, sanitizers)
    except _NoCuda as obstacle:
        if not force:
            reason = f"CPU only, because {obstacle.problem} ({obstacle.cure})"
            return Decision(reasons=(reason,))
        problem = f"SELKERN_FORCE_CUDA=1, but {obstacle.problem}"
        return Decision(obstacle=CannotBuild(problem, obstacle.cure))
    except CannotBuild as obstacle:
        return Decision(obstacle=obstacle)


class _NoCuda(CannotBuild):
    """What leaves a build without a CUDA part, unless one is demanded."""


def _decide(torch: Any, environment: Mapping[str, str], sanitizers: str) -> Decision:
    if sanitizers:
        raise _NoCuda(
            f"SELKERN_SANITIZE={sanitizers} instruments the CPU part alone",
            "unset it for a build with CUDA",
        )
    if getattr(torch.version, "hip", None):
        raise _NoCuda(
            f"torch {torch.__version__} is built for ROCm {torch.version.hip}",
            "selkern's GPU kernels need a torch that is built for CUDA",
        )
    if not torch.version.cuda:
        raise _NoCuda(
            f"torch {torch.__version__} is built without CUDA",
            "for GPU kernels install a torch that is built for CUDA",
        )
    wanted = _version(torch.version.cuda)
    toolkit = choose_toolkit(wanted, environment)
    reasons = [f"CUDA {dotted(toolkit.version)} from {toolkit.home}"]
    if toolkit.version[0] != wanted[0]:
        raise CannotBuild(
            f"nvcc is of CUDA {dotted(toolkit.version)} ({toolkit.home}) and torch"
            f" {torch.__version__} of CUDA {dotted(wanted)}, and the major versions must agree",
            f"set CUDA_HOME to a toolkit of CUDA {wanted[0]}, install a torch for CUDA"
            f" {toolkit.version[0]}, or build the CPU part alone with SELKERN_SKIP_CUDA=1",
        )
    if toolkit.version != wanted:
        reasons.append(
            f"warning: nvcc is of CUDA {dotted(toolkit.version)}, torch of CUDA {dotted(wanted)};"
            " minor versions may differ"
        )
    architectures, why = choose_architectures(
        environment.get("TORCH_CUDA_ARCH_LIST", ""),
        _visible_architectures(torch),
        known_architectures(toolkit),
    )
    reasons.append(f"GPU kernels for {' '.join(architectures)}, {why}")
    return Decision(CudaBuild(toolkit, architectures), tuple(reasons))


def _is_set(environment: Mapping[str, str], name: str) -> bool:
    value = environment.get(name, "")
    if value not in ("", "0", "1"):
        raise CannotBuild(f"{name} must be 1, 0 or unset, got {value!r}", "set one of these")
    return value == "1"


def _version(text: str) -> Version:
    major, minor = re.findall(r"\d+", text)[:2]
    return int(major), int(minor)


def choose_toolkit(wanted: Version, environment: Mapping[str, str]) -> Toolkit:
    """Return the first toolkit of the wanted major; where there is none, the first toolkit."""
    toolkits = list(_toolkits(wanted, environment))
    if not toolkits:
        named = environment.get("CUDA_HOME") or environment.get("CUDA_PATH")
        raise _NoCuda(
            f"no nvcc was found in {named or f'PATH or {USUAL_HOME}'}",
            f"for GPU kernels install a toolkit of CUDA {wanted[0]} and set CUDA_HOME to it",
        )
    return next((found for found in toolkits if found.version[0] == wanted[0]), toolkits[0])


def _toolkits(wanted: Version, environment: Mapping[str, str]) -> Iterator[Toolkit]:
    named = environment.get("CUDA_HOME") or environment.get("CUDA_PATH")
    if named:
        candidates = [Path(named) / "bin" / "nvcc"]
    else:
        on_path = shutil.which("nvcc", path=environment.get("PATH"))
        homes = [USUAL_HOME.with_name(f"{USUAL_HOME.name}-{dotted(wanted)}"), USUAL_HOME]
        candidates = [Path(on_path)] if on_path else []
        candidates += [home / "bin" / "nvcc" for home in homes]
    for nvcc in candidates:
        version = nvcc_version(_output(nvcc, "--version"))
        if version is not None:
            home = toolkit_home(_output(nvcc, "-v", "--dryrun", "unnamed.cu"))
            yield Toolkit(home or nvcc.resolve().parents[1], version)


def _output(*command: str | Path) -> str:
    try:
        finished = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
    except OSError:
        return ""
    return finished.stdout


def nvcc_version(text: str) -> Version | None:
    """Return the version that ``nvcc --version`` tells."""
    found = re.search(r"release (\d+)\.(\d+)", text)
    return None if found is None else (int(found[1]), int(found[2]))


def toolkit_home(dry_run: str) -> Path | None:
    """
    Return the toolkit's folder from what ``nvcc -v --dryrun`` prints.

    The folder above nvcc's own would be wrong where nvcc is a script that calls another one.
    """
    found = re.search(r"^#\$ TOP=(.+?)\s*$", dry_run, re.MULTILINE)
    return None if found is None else Path(found[1]).resolve()


def known_architectures(toolkit: Toolkit) -> list[Version]:
    """Return the compute capabilities that this nvcc compiles for, in order."""
    return _architectures(_output(toolkit.nvcc, "--list-gpu-arch"))


def _architectures(listing: str) -> list[Version]:
    numbers = re.findall(r"^compute_(\d+)$", listing, re.MULTILINE)
    return sorted((int(number[:-1]), int(number[-1])) for number in numbers)


def _visible_architectures(torch: Any) -> list[Version]:
    if not torch.cuda.is_available():
        return []
    devices = range(torch.cuda.device_count())
    return sorted({torch.cuda.get_device_capability(device) for device in devices})


def choose_architectures(
    asked: str, visible: list[Version], known: list[Version]
) -> tuple[tuple[str, ...], str]:
    """
    Return the architectures to compile for, as TORCH_CUDA_ARCH_LIST names them, and the reason.

    ``asked`` is the user's TORCH_CUDA_ARCH_LIST, ``visible`` the GPUs' compute capabilities and
    ``known`` those of nvcc. Where the user asked for none, the last one has PTX, which runs on
    later GPUs too.
    """
    names = tuple(filter(None, re.split(r"[\s;,]+", asked)))
    if names and names != ("native",):
        return names, "because TORCH_CUDA_ARCH_LIST says so"
    usable = [each for each in known if each >= OLDEST_ARCHITECTURE]
    if not usable:
        raise _NoCuda(
            f"this nvcc compiles for nothing from {dotted(OLDEST_ARCHITECTURE)} on",
            "install a newer toolkit",
        )
    if visible:
        served = [each for each in visible if each >= OLDEST_ARCHITECTURE]
        if not served:
            raise _NoCuda(
                f"the GPU has compute capability {dotted(visible[-1])}",
                f"selkern's GPU kernels need {dotted(OLDEST_ARCHITECTURE)}",
            )
        chosen = sorted({max(k for k in usable if k <= each) for each in served})
        reason = "the GPUs of this machine"
    else:
        chosen = [each for each in DEFAULT_ARCHITECTURES if each in usable]
        reason = "what this nvcc knows of the usual ones, because no GPU is visible"
    return (*map(dotted, chosen[:-1]), f"{dotted(chosen[-1])}+PTX"), reason
