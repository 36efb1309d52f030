"""What the commands of all demos have in common: options, progress and results."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from selkern.demo.cli import DEFAULT, DEMOS, PROGRAM

__all__ = [
    "make_parser",
    "print_json",
    "progress",
    "read_options",
    "say",
    "threads",
    "write_json",
]


def make_parser(
    name: str, description: str, *, epochs: int, quick_epochs: int, threads: int | None
) -> argparse.ArgumentParser:
    """A parser of the options that every demo has, with its numbers of epochs and threads."""
    others = ", ".join(f"`{PROGRAM} {other} --help`" for other in DEMOS if other != name)
    parser = argparse.ArgumentParser(
        f"{PROGRAM} {name}", description=description, epilog=f"See also {others}."
    )
    parser.set_defaults(full_epochs=epochs, quick_epochs=quick_epochs)
    parser.add_argument("--epochs", type=positive, help=f"{epochs}, or {quick_epochs} with --quick")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--threads",
        type=positive,
        default=threads,
        help=f"threads of torch (default: {'as torch chooses' if threads is None else threads})",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("selkern-demo" if name == DEFAULT else f"selkern-demo-{name}"),
        help="folder for the results (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead")
    parser.add_argument(
        "--quick", action="store_true", help="fewer epochs, networks and timed steps"
    )
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")
    return parser


def read_options(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None
) -> argparse.Namespace:
    """Read the options, decide on the epochs and make the folder for the results."""
    options, unknown = parser.parse_known_args(arguments)
    late = [name for name in DEMOS if name in unknown]
    if late:
        parser.exit(2, f"{PROGRAM}: the demo comes before its options: `{PROGRAM} {late[0]} ...`\n")
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if options.epochs is None:
        options.epochs = options.quick_epochs if options.quick else options.full_epochs
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--output: {error}")
    return options


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Let torch use so many threads for a while, or as many as it does, if None."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


@contextmanager
def progress(title: str, steps: int, off: bool) -> Iterator[Callable[..., object]]:
    """A progress bar, where standard error is a terminal."""
    try:
        from tqdm import tqdm
    except ImportError:
        say(title)
        yield lambda loss=None: None
        return
    with tqdm(desc=title, total=steps, disable=True if off else None) as bar:

        def after_step(loss: float | None = None) -> None:
            if loss is not None:
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update()

        if bar.disable:
            say(f"{title}: {steps} steps")
        yield after_step


def write_json(data: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def print_json(data: dict[str, Any]) -> None:
    print(json.dumps(data, indent=1))


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
