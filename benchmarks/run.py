"""The command ``python -m selkern bench``."""

from __future__ import annotations

import argparse
import fnmatch
import importlib.util
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from . import machine
from .gpu_table import gpu_table
from .measure import measure_all, works_of
from .report import markdown, print_results, readme_table
from .works import CUDA_WORKS, WORKS

__all__ = ["main"]

FOLDER = Path(__file__).resolve().parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks, or show a kept run."""
    options = _parser().parse_args(arguments)
    if options.table is not None:
        print(readme_table(_read(options.table)), end="")
        return 0
    if options.gpu_table is not None:
        is_there = options.gpu_table.exists()
        print(gpu_table(_read(options.gpu_table) if is_there else None), end="")
        return 0
    problem = _problem(options)
    if problem is not None:
        _say(f"python -m selkern bench: {problem}")
        return 2
    if options.only:
        options.only = [name for name in works_of(options.device) if _is_in(options.only, name)]
    options.output.mkdir(parents=True, exist_ok=True)
    status = 0
    if options.suite in ("all", "interleaved"):
        status = _run_interleaved(options)
    if options.suite in ("all", "pytest") and options.device == "cpu":
        status = _run_pytest(options.only, options.quick, options.output) or status
    print(f"written to {options.output}")
    return status


def _problem(options: argparse.Namespace) -> str | None:
    """Why these options cannot be run here."""
    if options.device == "cuda" and not torch.cuda.is_available():
        return "--device cuda needs a GPU that torch can reach, and there is none"
    if options.device == "cuda" and options.suite == "pytest":
        return "--suite pytest is for --device cpu"
    works = works_of(options.device)
    unknown = [glob for glob in options.only or () if not fnmatch.filter(works, glob)]
    return f"--device {options.device} has no work {unknown[0]}" if unknown else None


def _is_in(globs: Sequence[str], name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, glob) for glob in globs)


def _short_names() -> list[str]:
    """The works of a GPU, those of one operator on many shapes as a glob."""
    operations = {getattr(work, "operation", None): None for work in CUDA_WORKS.values()}
    globs = [f"{operation}_[0-9]*" for operation in operations if operation]
    return [*(name for name, work in CUDA_WORKS.items() if not hasattr(work, "operation")), *globs]


def _run_interleaved(options: argparse.Namespace) -> int:
    commit = options.commit or machine.commit()

    def keep(results: dict[str, Any]) -> None:
        _write({**results, "commit": commit}, options.output)

    results = measure_all(
        options.only,
        device=options.device,
        quick=options.quick,
        seconds=options.seconds,
        say=_say,
        keep=keep,
    )
    print_results(results)
    for name, why in {**results["failures"], **results["skipped"]}.items():
        print(f"{name}: {why}")
    return 1 if results["failures"] else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m selkern bench",
        description="Measure selkern against plain PyTorch. Every contender is first "
        "checked against float64. Times are reported and never asserted.",
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds, and no torch.compile")
    parser.add_argument(
        "--only",
        action="append",
        metavar="WORK",
        help=f"one work, or a glob of their names; may be repeated. On the CPU: "
        f"{', '.join(WORKS)}. On a GPU: {', '.join(_short_names())}",
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="default: %(default)s"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=float("inf"),
        help="start no work after so many seconds; the most important come first",
    )
    parser.add_argument("--commit", help="what to note as the commit (default: git's answer)")
    parser.add_argument(
        "--suite",
        choices=("all", "interleaved", "pytest"),
        default="all",
        help="contenders in turn, one by one with pytest-benchmark, or both (default)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("selkern-benchmarks"),
        help="folder for the results (default: %(default)s)",
    )
    parser.add_argument(
        "--table",
        type=Path,
        metavar="FILE",
        help="print the short table of a benchmark.json and measure nothing",
    )
    parser.add_argument(
        "--gpu-table",
        type=Path,
        metavar="FILE",
        help="the same for a run on a GPU; says so where there is no such file",
    )
    return parser


def _read(path: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return results


def _write(results: dict[str, Any], folder: Path) -> None:
    text = json.dumps(results, indent=1) + "\n"
    (folder / "benchmark.json").write_text(text, encoding="utf-8")
    (folder / "benchmark.md").write_text(markdown(results), encoding="utf-8")


def _run_pytest(only: Sequence[str] | None, quick: bool, output: Path) -> int:
    if importlib.util.find_spec("pytest_benchmark") is None:
        _say("the pytest suites need pytest-benchmark: run `pip install selkern[bench]`")
        return 1
    import pytest

    with tempfile.TemporaryDirectory() as storage:
        # By path: it works from any folder, for an installed package and for one in development.
        options = [
            f"--config-file={FOLDER / 'pytest.ini'}",
            f"--rootdir={FOLDER}",
            f"--benchmark-json={output.resolve() / 'pytest-benchmark.json'}",
            f"--benchmark-storage=file://{storage}",
            f"-k={_expression(only, quick)}",
        ]
        if quick:
            options += ["--benchmark-min-rounds=3", "--benchmark-max-time=0.2"]
        return int(pytest.main([*options, *map(str, sorted(FOLDER.glob("bench_*.py")))]))


def _expression(only: Sequence[str] | None, quick: bool) -> str:
    parts = ["not compiled"] if quick else []
    if only:
        parts.append("(" + " or ".join(f"{name}-" for name in only) + ")")
    return " and ".join(parts)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
