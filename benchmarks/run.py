"""The command ``python -m selkern bench``."""

from __future__ import annotations

import argparse
import fnmatch
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

from selkern import _command
from selkern._command import CommandFailed, Parser, current, make_folder, make_parser, print_json

from . import machine
from .gpu_table import gpu_table
from .measure import measure_all, works_of
from .report import markdown, print_results, readme_table
from .work import Disagreement
from .works import CUDA_WORKS, WORKS, inputs

__all__ = ["main"]

PYTEST_RESULTS = "pytest-benchmark.json"
FOLDER = Path(__file__).resolve().parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks, or show a kept run."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.table is not None or options.gpu_table is not None:
        _show_table(options, parser)
        return 0
    problem = _problem(options)
    if problem is not None:
        parser.error(problem)
    if options.only:
        options.only = [name for name in works_of(options.device) if _is_in(options.only, name)]
    make_folder(options.output, parser)
    say = partial(_command.say, quiet=options.quiet)
    document: dict[str, Any] = {}
    status = 0
    if options.suite in ("all", "interleaved"):
        document = _run_interleaved(options, say)
        status = 1 if document["failures"] else 0
    if options.suite in ("all", "pytest") and options.device.type == "cpu":
        status = _run_pytest(options) or status
        document["pytest_benchmark"] = _kept(options.output / PYTEST_RESULTS)
    if options.json:
        print_json(document)
    say(f"written to {options.output}")
    return status


def _show_table(options: argparse.Namespace, parser: Parser) -> None:
    """Print a kept run, or that there is none of a GPU."""
    path: Path = options.table or options.gpu_table
    try:
        if options.table is not None:
            results = _read(path)
            kept: dict[str, Any] | None = results
            table = readme_table(results)
        else:
            kept = _kept(path)
            table = gpu_table(kept)
    except (OSError, ValueError, KeyError, TypeError) as error:
        parser.error(f"{path} must be a benchmark.json, got {type(error).__name__}: {error}")
    if options.json:
        print_json(kept)
    else:
        print(table, end="")


def _problem(options: argparse.Namespace) -> str | None:
    """Why these options cannot be run here."""
    if options.device.type == "cuda" and options.suite == "pytest":
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


def _run_interleaved(options: argparse.Namespace, say: Callable[[str], object]) -> dict[str, Any]:
    commit = options.commit or machine.commit()

    def keep(results: dict[str, Any]) -> None:
        _write({**results, "commit": commit}, options.output)

    try:
        with inputs.seeded(options.seed), current(options.device):
            results = measure_all(
                options.only,
                device=options.device,
                quick=options.quick,
                seconds=options.seconds,
                say=say,
                keep=keep,
            )
    except Disagreement as error:
        raise CommandFailed(str(error)) from error
    if not options.json:
        print_results(results)
        for name, why in {**results["failures"], **results["skipped"]}.items():
            print(f"{name}: {why}")
    return {**results, "commit": commit}


def _parser() -> Parser:
    parser = make_parser(
        "python -m selkern bench",
        "Measure selkern against plain PyTorch. Every contender is first checked against float64. "
        "Times are reported and never asserted.",
        seed="of the inputs, and of the weights of networks",
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


def _kept(path: Path) -> dict[str, Any] | None:
    return _read(path) if path.exists() else None


def _run_pytest(options: argparse.Namespace) -> int:
    if importlib.util.find_spec("pytest_benchmark") is None:
        _command.say("the pytest suites need pytest-benchmark: run `pip install pytest-benchmark`")
        return 1
    import pytest

    (options.output / PYTEST_RESULTS).unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as storage, _pytest_output(options):
        # By path: it works from any folder, for an installed package and for one in development.
        given = [
            f"--config-file={FOLDER / 'pytest.ini'}",
            f"--rootdir={FOLDER}",
            f"--benchmark-json={options.output.resolve() / PYTEST_RESULTS}",
            f"--benchmark-storage=file://{storage}",
            f"--inputs-seed={options.seed}",
            f"-k={_expression(options.only, options.quick)}",
        ]
        if options.quick:
            given += ["--benchmark-min-rounds=3", "--benchmark-max-time=0.2"]
        code = pytest.main([*given, *map(str, sorted(FOLDER.glob("bench_*.py")))])
    if code == pytest.ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    if code in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        return 0
    _command.say(f"python -m selkern bench: pytest ended with exit code {int(code)}")
    return 1


@contextmanager
def _pytest_output(options: argparse.Namespace) -> Iterator[None]:
    """Keep what pytest prints from results as JSON, and more than its tables from a quiet run."""
    with ExitStack() as stack:
        nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
        if options.json:
            stack.enter_context(redirect_stdout(nowhere if options.quiet else sys.stderr))
        if options.quiet:
            stack.enter_context(redirect_stderr(nowhere))
        yield


def _expression(only: Sequence[str] | None, quick: bool) -> str:
    parts = ["not compiled"] if quick else []
    if only:
        parts.append("(" + " or ".join(f"{name}-" for name in only) + ")")
    return " and ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
