"""Builds, tests and measures selkern on a machine with a GPU; `make cuda` runs it.

It takes the Python that it runs with and what that has, and needs no network. The
whole stays within a time limit: what does not fit any more is skipped, and said so.

The exit status is 0 where all is well, 1 where the build, a test, a sanitizer or the
check of a benchmark failed, and 2 where there is no GPU.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from on_gpu_machine import describe, folder_name
from on_gpu_profile import PROFILER, table
from on_gpu_report import complaint, copy_out, public, read_results, summary
from on_gpu_run import (
    FAILED,
    PASSED,
    SKIPPED,
    TIMED_OUT,
    Deadline,
    Program,
    Result,
    Runner,
    last_lines,
    output_of,
)

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "on_gpu"
LIBRARY = BUILD / "lib"
LIBRARY_NAME = str(LIBRARY.relative_to(ROOT))
STEPS = ("build", "gpu-tests", "benchmarks", "profile", "sanitizer", "cpu-tests")
# Side by side: neither measures anything.
LAST = ("sanitizer", "cpu-tests")

# These find their GPU tests by the name of the parameter `device` or `anywhere`.
MIXED_TESTS = (
    "test_kernels.py",
    "test_map_kernels.py",
    "test_spectrum_kernels.py",
    "test_spectrum_device.py",
    "test_attack_steps.py",
    "test_attack_outputs.py",
)
GPU_TESTS = (
    # First, because it compiles and takes longest.
    "test_cuda_models.py",
    *MIXED_TESTS,
    "test_cuda.py",
    "test_cuda_memory.py",
    "test_attack_cuda.py",
)
SANITIZERS = {
    "memcheck": ["--report-api-errors", "no", "--padding", "256"],
    "racecheck": ["--racecheck-report", "all"],
    "initcheck": [],
    "synccheck": [],
}
OURS = ["--kernel-name", "kns=selkern"]

# Seconds kept for the sanitizers and the CPU tests while the benchmarks run.
RESERVED = 150.0
BUILD_LIMIT = 240.0
GPU_TEST_LIMIT = 150.0
PROFILE_LIMIT = 120.0

PYTEST = "import pytest, sys; sys.exit(pytest.main(sys.argv[1:]))"
# Without the current folder, where the sources would hide what was built; what tests start too.
SAFE_PATH = {"PYTHONSAFEPATH": "1"}
TINY = "import torch; x = torch.ones(4, device='cuda'); print((x + x).sum().item())"


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    deadline = Deadline(options.minutes)
    probe = describe()
    has_gpu = bool(probe["gpus"])
    if not has_gpu and not options.dry_run:
        print(
            f"on_gpu: torch {probe['torch']} reaches no GPU here; --dry-run goes through the steps"
        )
        return 2
    for name, value in probe.items():
        print(f"{name:18} {value}")
    run = _Run(options, probe, deadline)
    first = [step for step in STEPS if step in options.steps and step not in LAST]
    last = [step for step in LAST if step in options.steps]
    if all(run.do(step) for step in first):
        with ThreadPoolExecutor(len(LAST)) as pool:
            list(pool.map(run.do, last))
    run.write()
    print(run.summary())
    return run.exit_status()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("on_gpu.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--minutes", type=float, default=9.5, help="for everything (default: %(default)s)"
    )
    parser.add_argument(
        "--steps",
        type=lambda text: [_step(name) for name in text.split(",")],
        default=list(STEPS),
        help=f"some of {','.join(STEPS)} (default: all)",
    )
    parser.add_argument(
        "--output", type=Path, help="default: benchmarks/results/ and the GPU's name"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at once")
    parser.add_argument("--commit", help="what to note as the commit (default: git's answer)")
    parser.add_argument("--only", action="append", default=[], help="a work of the benchmarks")
    parser.add_argument(
        "--quick", action="store_true", help="fewer rounds of the benchmarks, no torch.compile"
    )
    parser.add_argument(
        "--prebuilt", action="store_true", help=f"build only where {LIBRARY_NAME} cannot be loaded"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="go through the steps as far as they go without GPU"
    )
    return parser


def _step(name: str) -> str:
    if name not in STEPS:
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(STEPS)}")
    return name


class _Run:
    """The steps, and what became of them."""

    def __init__(
        self, options: argparse.Namespace, probe: dict[str, Any], deadline: Deadline
    ) -> None:
        self.options = options
        self.probe = probe
        self.deadline = deadline
        self.has_gpu = bool(probe["gpus"])
        self.output = options.output or ROOT / "benchmarks" / "results" / folder_name(probe["gpu"])
        if not self.has_gpu and options.output is None:
            self.output = BUILD / "dry-run"
        self.output = self.output.resolve()
        self.output.mkdir(parents=True, exist_ok=True)
        logs = BUILD / "logs"
        shutil.rmtree(logs, ignore_errors=True)
        logs.mkdir(parents=True)
        self.runner = Runner(ROOT, logs, self._environment(), deadline)

    def _environment(self) -> dict[str, str]:
        path = os.pathsep.join(filter(None, [str(LIBRARY), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": path, "MAX_JOBS": str(self.options.jobs)}
        environment["PYTHONUNBUFFERED"] = "1"
        for name in ("SELKERN_SKIP_CUDA", "SELKERN_FORCE_CUDA", "SELKERN_SANITIZE"):
            environment.pop(name, None)
        return environment

    def do(self, step: str) -> bool:
        """Do a step; False where none can follow."""
        steps: dict[str, Callable[[], bool | None]] = {
            "build": self.build,
            "gpu-tests": self.gpu_tests,
            "benchmarks": self.benchmarks,
            "profile": self.profile,
            "sanitizer": self.sanitizer,
            "cpu-tests": self.cpu_tests,
        }
        print(f"-- {step}, {self.deadline.left():.0f} s left", flush=True)
        goes_on = steps[step]() is not False
        self.write()
        return goes_on

    # ------------------------------------------------------------------------------- build

    def build(self) -> bool:
        if self.options.prebuilt:
            info = self._info()
            if self._is_usable(info):
                self.runner.note(Result("build", "selkern", PASSED, detail="as it was brought"))
                print(info)
                return True
            print(f"what is in {LIBRARY_NAME} cannot be loaded")
        LIBRARY.mkdir(parents=True, exist_ok=True)
        if self.has_gpu:
            environment = {"SELKERN_FORCE_CUDA": "1", "TORCH_CUDA_ARCH_LIST": self._architecture()}
        else:
            self.runner.skip("build", "CUDA part", "there is no GPU")
            environment = {"SELKERN_SKIP_CUDA": "1"}
        command = [sys.executable, "setup.py", "egg_info", "--egg-base", str(LIBRARY)]
        command += ["build", "--build-lib", str(LIBRARY)]
        command += ["build_ext", "--build-temp", str(BUILD / "temp")]
        program = Program("selkern", command, environment)
        result = self.runner.run("build", program, BUILD_LIMIT)
        info = self._info()
        if result.status == PASSED and not self._is_usable(info):
            result.status, result.output = FAILED, "it was built and cannot be loaded\n"
            result.output += info or "python -m selkern info fails"
        self.runner.note(result)
        if result.status != PASSED:
            print(last_lines(result.output, 40))
        else:
            print(info)
        return result.status == PASSED

    def _info(self) -> str | None:
        """What the library says of itself, or None where it cannot be loaded."""
        command = [sys.executable, "-m", "selkern", "info"]
        return output_of(command, env=self.runner.environment, cwd=BUILD)

    def _is_usable(self, info: str | None) -> bool:
        needed = "cuda_loaded" if self.has_gpu else "compiled"
        return info is not None and bool(re.search(rf"^{needed} +True", info, re.MULTILINE))

    def _architecture(self) -> str:
        return os.environ.get("TORCH_CUDA_ARCH_LIST") or str(self.probe["capability"])

    # ------------------------------------------------------------------------------- tests

    def gpu_tests(self) -> None:
        programs = []
        for name in GPU_TESTS:
            selection = "cuda" if name in MIXED_TESTS else ""
            programs.append(self._tests(name, selection))
        limit = min(GPU_TEST_LIMIT, self.deadline.left(60))
        at_once = max(1, self.options.jobs // 2)
        for result in self.runner.run_all("gpu-tests", programs, limit, at_once):
            self._note_tests(result)

    def cpu_tests(self) -> None:
        if not self.has_gpu:
            self.runner.skip("cpu-tests", "running them", "a dry run only collects them")
        programs = []
        for path in sorted((ROOT / "tests").glob("test_*.py"), key=_size, reverse=True):
            if path.name in GPU_TESTS and path.name not in MIXED_TESTS:
                continue
            missing = self._missing_imports(path)
            if missing:
                reason = f"{', '.join(missing)} cannot be imported"
                self.runner.skip("cpu-tests", path.name, reason)
                continue
            selection = "not cuda" if path.name in MIXED_TESTS else ""
            programs.append(self._tests(path.name, selection, "-m", "not slow"))
        at_once = max(1, self.options.jobs // 2)
        for result in self.runner.run_all("cpu-tests", programs, self.deadline.left(5), at_once):
            self._note_tests(result)

    def _tests(self, name: str, selection: str, *options: str) -> Program:
        if "expecttest" in self.probe["missing"]:
            # torch.library.opcheck imports it.
            selection = f"({selection}) and not opcheck" if selection else "not opcheck"
        command = [sys.executable, "-c", PYTEST, f"tests/{name}", "-q", "-p", "no:cacheprovider"]
        command += ["-k", selection] if selection else []
        command += ["--collect-only"] if not self.has_gpu and "-m" in options else []
        # Two, because several files are tested side by side.
        return Program(name, [*command, *options], {"OMP_NUM_THREADS": "2", **SAFE_PATH})

    def _note_tests(self, result: Result) -> None:
        lines = result.output.strip().splitlines()
        result.detail = result.detail or (lines[-1].strip("= ") if lines else "")
        # Nothing to run: all were deselected. On the GPU that would hide that nothing is tested.
        if result.returncode == 5 and (result.step != "gpu-tests" or not self.has_gpu):
            result.status = SKIPPED
        self.runner.note(result)
        if result.status == FAILED:
            print(last_lines(result.output, 60))
        elif result.status == TIMED_OUT:
            print(last_lines(result.output, 5))

    def _missing_imports(self, path: Path) -> list[str]:
        modules = set()
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                modules.add(node.module.partition(".")[0])
        return sorted(modules & set(self.probe["missing"]))

    # -------------------------------------------------------------------------- benchmarks

    def benchmarks(self) -> None:
        if not self.has_gpu:
            self.runner.skip("benchmarks", "all works", "there is no GPU")
            return
        seconds = self.deadline.left(RESERVED if len(self.options.steps) > 1 else 15)
        if seconds < 30:
            self.runner.skip("benchmarks", "all works", "no time was left")
            return
        commit = self.options.commit or output_of(["git", "rev-parse", "HEAD"], cwd=ROOT)
        # Not through `selkern bench`, which asks for packages that only other suites need.
        command = [sys.executable, "-m", "selkern._benchmarks.run", "--device", "cuda"]
        command += ["--suite", "interleaved", "--output", str(self.output)]
        command += ["--seconds", f"{0.9 * seconds:.0f}"]
        command += ["--commit", commit] if commit else []
        command += ["--quick"] if self.options.quick else []
        command += [word for name in self.options.only for word in ("--only", name)]
        # A result of an earlier run must not pass for one of this.
        for name in ("benchmark.json", "benchmark.md"):
            (self.output / name).unlink(missing_ok=True)
        program = Program("all works", command)
        result = self.runner.run("benchmarks", program, seconds, cwd=BUILD)
        results = read_results(self.output)
        if results is not None:
            counts = {key: len(results[key]) for key in ("works", "skipped", "failures")}
            result.detail += ", ".join(f"{count} {name}" for name, count in counts.items())
        self.runner.note(result)
        if result.status != PASSED:
            print(last_lines(result.output, 30))

    def profile(self) -> None:
        if not self.has_gpu or self.probe["ncu"] is None:
            self.runner.skip("profile", "ncu", "there is no GPU or no ncu")
            return
        script = [sys.executable, str(ROOT / "tools" / "on_gpu_profile.py")]
        only = [word for name in self.options.only for word in ("--only", name)]
        program = Program("ncu", [*PROFILER, *script, *only])
        limit = min(PROFILE_LIMIT, self.deadline.left(30))
        result = self.runner.run("profile", program, limit, cwd=BUILD)
        try:
            (self.output / "profile.md").write_text(table(result.output), encoding="utf-8")
        except (KeyError, ValueError) as error:
            result.status, result.detail = SKIPPED, f"ncu cannot measure here: {error!r}"
        self.runner.note(result)

    # --------------------------------------------------------------------------- sanitizer

    def sanitizer(self) -> None:
        if not self.has_gpu:
            script = [sys.executable, "tools/on_gpu_kernels.py", "--device", "cpu"]
            result = self.runner.run("sanitizer", Program("script on the CPU", script), 120)
            self.runner.note(result)
            self.runner.skip("sanitizer", "all tools", "there is no GPU")
            return
        if self.probe["compute-sanitizer"] is None:
            self.runner.skip("sanitizer", "all tools", "compute-sanitizer was not found")
            return
        # Each tensor is an allocation of its own, so that reading past one shows.
        environment = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "OMP_NUM_THREADS": "2"}
        probe = [*self._sanitized("memcheck"), sys.executable, "-c", TINY]
        result = self.runner.run("sanitizer", Program("probe", probe, environment), 90)
        if result.status != PASSED:
            reason = f"compute-sanitizer cannot run here: {complaint(result.output)}"
            self.runner.skip("sanitizer", "all tools", reason)
            return
        script = [sys.executable, "tools/on_gpu_kernels.py"]
        programs = [
            Program(tool, [*self._sanitized(tool), *script], environment) for tool in SANITIZERS
        ]
        limit = self.deadline.left(5)
        for result in self.runner.run_all("sanitizer", programs, limit, len(programs)):
            result.detail = result.detail or complaint(result.output)
            self.runner.note(result)
            if result.status == FAILED:
                print(last_lines(result.output, 40))

    def _sanitized(self, tool: str) -> list[str]:
        command = ["compute-sanitizer", "--tool", tool, *SANITIZERS[tool]]
        # What other kernels write counts as initialized too.
        command += OURS if tool != "initcheck" else []
        return [*command, "--error-exitcode", "99", "--launch-timeout", "60"]

    # ------------------------------------------------------------------------------ report

    def exit_status(self) -> int:
        # A test or a build that ran out of time has proved nothing.
        bad = [r for r in self.runner.results if r.status in (FAILED, TIMED_OUT)]
        return 1 if any(r.step != "benchmarks" or r.status == FAILED for r in bad) else 0

    def summary(self) -> str:
        seconds = f"{self.deadline.passed():.0f} s in all; exit status {self.exit_status()}"
        measured = read_results(self.output)
        return summary(self.probe, self.runner.results, measured, seconds)

    def write(self) -> None:
        """Write what there is, also where $OUT names a folder for it."""
        data = {
            "probe": public(self.probe),
            "steps": [result.as_dict() for result in self.runner.results],
            "seconds": round(self.deadline.passed(), 1),
        }
        text = json.dumps(data, indent=1) + "\n"
        (self.output / "on_gpu.json").write_text(text, encoding="utf-8")
        (self.output / "on_gpu.md").write_text(self.summary(), encoding="utf-8")
        if os.environ.get("OUT"):
            copy_out(self.output, self.runner.logs, Path(os.environ["OUT"]))


def _size(path: Path) -> int:
    return path.stat().st_size


if __name__ == "__main__":
    sys.exit(main())
