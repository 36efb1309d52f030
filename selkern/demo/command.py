"""What the commands of all demos have in common: options, progress and results."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selkern.demo.cli import DEMOS

__all__ = ["make_parser", "positive", "progress", "say", "write_json"]


def make_parser(
    name: str, description: str, *, epochs: int, quick_epochs: int
) -> argparse.ArgumentParser:
    """A parser of the options that every demo has."""
    others = ", ".join(f"`python -m selkern demo {other} -h`" for other in DEMOS if other != name)
    parser = argparse.ArgumentParser(
        f"python -m selkern demo {name}", description=description, epilog=f"See also {others}."
    )
    parser.add_argument("--epochs", type=positive, help=f"{epochs}, or {quick_epochs} with --quick")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("selkern-demo"),
        help="folder for the results (default: %(default)s)",
    )
    parser.add_argument("--quick", action="store_true", help="fewer epochs and timed steps")
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")
    return parser


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


@contextmanager
def progress(title: str, steps: int, off: bool) -> Iterator[Callable[[float], object]]:
    """A progress bar, where standard error is a terminal."""
    try:
        from tqdm import tqdm
    except ImportError:
        say(title)
        yield lambda loss: None
        return
    with tqdm(desc=title, total=steps, disable=True if off else None) as bar:

        def after_step(loss: float) -> None:
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update()

        if bar.disable:
            say(f"{title}: {steps} steps")
        yield after_step


def write_json(data: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
