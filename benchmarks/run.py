"""The command ``python -m selkern bench``."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .measure import measure_all
from .report import markdown, print_results, readme_table
from .works import WORKS

__all__ = ["main"]

FOLDER = Path(__file__).resolve().parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks, or show a kept run."""
    options = _parser().parse_args(arguments)
    if options.table is not None:
        print(readme_table(json.loads(options.table.read_text(encoding="utf-8"))), end="")
        return 0
    options.output.mkdir(parents=True, exist_ok=True)
    status = 0
    if options.suite in ("all", "interleaved"):
        results = measure_all(options.only, quick=options.quick, say=_say)
        print_results(results)
        _write(results, options.output)
    if options.suite in ("all", "pytest"):
        status = _run_pytest(options.only, options.quick, options.output)
    print(f"written to {options.output}")
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m selkern bench",
        description="Measure selkern against plain PyTorch. Every contender is first "
        "checked against float64. Times are reported and never asserted.",
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds, and no torch.compile")
    parser.add_argument(
        "--only", action="append", choices=list(WORKS), help="one work; may be repeated"
    )
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
    return parser


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
