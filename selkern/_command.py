"""What all commands share: options, errors of one line, progress and results."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NoReturn

import torch

__all__ = [
    "CLOSED_PIPE",
    "INTERRUPTED",
    "CommandFailed",
    "Parser",
    "as_json",
    "create_folder",
    "current",
    "make_folder",
    "make_parser",
    "non_negative",
    "positive",
    "print_json",
    "progress",
    "say",
    "threads",
    "write_json",
    "write_whole",
]

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""
CLOSED_PIPE = 141
"""Exit code where nobody reads the results any more, as shells have it."""


class CommandFailed(Exception):
    """A run that failed, with one line that says why; the exit code is 1."""


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line, and leaves the usage to ``--help``."""

    def error(self, message: str) -> NoReturn:
        """Leave with exit code 2."""
        line = " ".join(message.split())
        self.exit(2, f"{self.prog}: {line} (`{self.prog} --help` shows what there is)\n")

    @contextmanager
    def refusing(self, option: str) -> Iterator[None]:
        """Turn what a value is refused with into one line that names its option."""
        try:
            yield
        except (ImportError, OSError, TypeError, ValueError) as error:
            self.error(f"{option}: {error}")


def make_parser(
    program: str,
    description: str,
    *,
    epilog: str | None = None,
    seed: str = "of all random numbers, the first where there are several",
) -> Parser:
    """Make a parser of the options that every command has, and say what the seed is for."""
    parser = Parser(program, description=description, epilog=epilog, allow_abbrev=False)
    common = parser.add_argument_group("options of every command")
    common.add_argument("--json", action="store_true", help="print the results as JSON instead")
    common.add_argument(
        "--quiet", action="store_true", help="print results and errors alone, and no progress"
    )
    common.add_argument(
        "--device",
        type=device,
        default=torch.device("cpu"),
        help="cpu, cuda or cuda:INDEX (default: %(default)s)",
    )
    common.add_argument(
        "--seed",
        type=non_negative,
        default=0,
        help=f"{seed} (default: %(default)s)",
    )
    return parser


def device(text: str) -> torch.device:
    """Read the name of a device that is there."""
    try:
        named = torch.device(text)
    except RuntimeError:
        named = torch.device("meta")
    if named.type not in ("cpu", "cuda"):
        raise argparse.ArgumentTypeError(f"must be cpu, cuda or cuda:INDEX, got {text!r}")
    if named.type == "cuda" and (named.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise argparse.ArgumentTypeError(
            f"{text} needs a GPU that torch can reach, and there {'is' if count == 1 else 'are'} "
            f"{count or 'none'}"
        )
    return named


def positive(text: str) -> int:
    """Read a whole number of at least 1."""
    return _at_least(text, 1)


def non_negative(text: str) -> int:
    """Read a whole number from 0 on that can seed random numbers."""
    value = _at_least(text, 0)
    if value >= 2**63:
        raise argparse.ArgumentTypeError(f"must be below 2**63, got {text!r}")
    return value


def _at_least(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"must be a whole number from {least} on, got {text!r}")
    return value


def create_folder(path: Path) -> None:
    """Make a folder and those that it lies in; a ValueError names a file where one should be."""
    for folder in (path, *path.parents):
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"{folder} is a file, not a folder")
    path.mkdir(parents=True, exist_ok=True)


def make_folder(path: Path, parser: Parser) -> None:
    """Make the folder for the results, or refuse it."""
    with parser.refusing("--output"):
        create_folder(path)
    if not os.access(path, os.W_OK | os.X_OK):
        parser.error(f"--output: {path} cannot be written to")


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


@contextmanager
def current(device: torch.device) -> Iterator[None]:
    """Make a GPU the one that clocks and graphs are of."""
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        yield


@contextmanager
def progress(title: str, steps: int, *, quiet: bool) -> Iterator[Callable[..., object]]:
    """Show a progress bar where standard error is a terminal, and elsewhere a line.

    What it gives is called after every step, with the loss and the number of steps if it likes.
    """
    if quiet:
        yield lambda loss=None, steps=1: None
        return
    try:
        from tqdm import tqdm
    except ImportError:
        say(f"{title}: {steps} steps")
        yield lambda loss=None, steps=1: None
        return
    with tqdm(desc=title, total=steps, disable=None) as bar:

        def after_step(loss: float | None = None, steps: int = 1) -> None:
            if loss is not None:
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update(steps)

        if bar.disable:
            say(f"{title}: {steps} steps")
        yield after_step


def say(line: str, *, quiet: bool = False) -> None:
    """Tell the user something that is no result."""
    if not quiet:
        print(line, file=sys.stderr, flush=True)


def print_json(data: Any) -> None:
    """Print a result as JSON, which knows no numbers that are not finite: they are null."""
    print(as_json(data, indent=1))


def as_json(data: Any, indent: int | None = None) -> str:
    """Write data as JSON, numbers that are not finite as null."""
    return json.dumps(_without_nan(data), indent=indent, allow_nan=False)


def _without_nan(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _without_nan(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_without_nan(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def write_json(data: Any, path: Path) -> None:
    """Write a result as JSON, whole or not at all."""
    write_whole(path, (as_json(data, indent=1) + "\n").encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is either there with all its content or as it was before."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    with open(beside, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
