"""The command ``python -m selkern``."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, cast

import torch

from selkern import _command
from selkern._command import Parser, make_parser, print_json, say
from selkern._library import build_info
from selkern._version import __version__

PROGRAM = "python -m selkern"
FAILURES = (
    _command.CommandFailed,
    ImportError,
    # Of an operator without its CUDA part.
    NotImplementedError,
    OSError,
    torch.OutOfMemoryError,
)
"""What says by itself, in a line, why a run failed."""


def info(arguments: Sequence[str]) -> int:
    """Print what the package was built with and what it runs on."""
    parser = make_parser(
        f"{PROGRAM} info",
        "Print what the package was built with and what it runs on.",
        seed="taken as by every command; there are no random numbers here",
    )
    options = parser.parse_args(arguments)
    rows = {
        **build_info(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        **describe(options.device),
    }
    if options.json:
        print_json(rows)
        return 0
    for name, value in rows.items():
        shown = ", ".join(value) if isinstance(value, list) else value
        print(f"{name:18} {'-' if shown in (None, '') else shown}")
    return 0


def describe(device: torch.device) -> dict[str, Any]:
    """What torch knows of a device."""
    if device.type == "cpu":
        return {"device": "cpu", "threads": torch.get_num_threads()}
    properties = torch.cuda.get_device_properties(device)
    return {
        "device": str(device),
        "gpu": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "gpu_memory_gib": round(properties.total_memory / 2**30, 1),
        "cuda_of_torch": torch.version.cuda,
    }


def run_extra(
    arguments: Sequence[str],
    *,
    module: str,
    extra: str,
    packages: dict[str, str],
    is_timing: bool = True,
) -> int:
    """Run the ``main`` of a module that needs packages of an extra, and for times benchmarks."""
    missing = [name for name, imported in packages.items() if not is_installed(imported)]
    if missing and not {"-h", "--help"} & set(arguments):
        say(f"{PROGRAM} {extra} needs {', '.join(missing)}: run `pip install {' '.join(missing)}`")
        return 1
    if is_timing and not is_installed("selkern._benchmarks"):
        say(
            f"{PROGRAM} {extra} needs selkern to be installed, and its source folder was"
            " imported: run `pip install --no-build-isolation --editable .` there"
        )
        return 1
    main = cast("Callable[[Sequence[str]], int | None]", importlib.import_module(module).main)
    return main(arguments) or 0


def is_installed(module: str) -> bool:
    """Whether a module can be found, without importing it."""
    return importlib.util.find_spec(module) is not None


COMMANDS: dict[str, tuple[str, Callable[[Sequence[str]], int]]] = {
    "info": ("print what the package was built with and what it runs on", info),
    "demo": (
        "train on real digits with a regularizer: demo selectivity, spectrum or attack",
        partial(
            run_extra,
            module="selkern.demo.cli",
            extra="demo",
            packages={
                "scikit-learn": "sklearn",
                "scikit-image": "skimage",
                "matplotlib": "matplotlib",
                "tqdm": "tqdm",
                "rich": "rich",
            },
        ),
    ),
    "study": (
        "repeat what a paper found: study selectivity, spectrum or recording",
        partial(
            run_extra,
            module="selkern.study.cli",
            extra="study",
            packages={
                "scipy": "scipy",
                "scikit-learn": "sklearn",
                "matplotlib": "matplotlib",
                "tqdm": "tqdm",
                "kornia": "kornia",
                "Pillow": "PIL",
            },
            is_timing=False,
        ),
    ),
    "bench": (
        "measure the operators against plain PyTorch",
        partial(
            run_extra,
            module="selkern._benchmarks.run",
            extra="bench",
            packages={"pytest": "pytest", "pytest-benchmark": "pytest_benchmark", "rich": "rich"},
        ),
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, and end in one line where it was stopped or failed."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        try:
            return run(arguments)
        finally:
            # Here, and not as Python ends, it can be caught that nobody reads.
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        forget_output()
        return _command.CLOSED_PIPE
    except KeyboardInterrupt:
        goes_on = ": run the same command again to go on" if arguments[:1] == ["study"] else ""
        say(f"{PROGRAM}: interrupted{goes_on}")
        return _command.INTERRUPTED
    except FAILURES as error:
        say(f"{PROGRAM}: {' '.join(str(error).split())}")
        return 1


def run(arguments: Sequence[str]) -> int:
    """Run the command that the first argument names; all others are the command's own."""
    parser = Parser(PROGRAM, description="Class selectivity and covariance eigenspectra.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", dest="command", metavar="command")
    for name, (summary, _) in COMMANDS.items():
        commands.add_parser(name, help=summary)
    parser.epilog = f"`{PROGRAM} demo --help` shows what a command takes."
    chosen = parser.parse_args(arguments[:1]).command
    if chosen is None:
        parser.print_help()
        return 0
    _, run_command = COMMANDS[chosen]
    return run_command(arguments[1:])


def forget_output() -> None:
    """Let what is still to be written to a closed pipe go nowhere."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
