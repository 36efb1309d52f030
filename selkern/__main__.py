"""The command ``python -m selkern``."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import platform
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

from selkern._library import build_info
from selkern._version import __version__


def info(arguments: Sequence[str]) -> int:
    """Print what the package was built with and what it runs on."""
    parser = argparse.ArgumentParser("python -m selkern info", description=info.__doc__)
    parser.parse_args(arguments)
    rows = {**build_info(), "python": platform.python_version(), "platform": platform.platform()}
    for name, value in rows.items():
        shown = ", ".join(value) if isinstance(value, list) else value
        print(f"{name:18} {'-' if shown in (None, '') else shown}")
    return 0


def run_extra(
    arguments: Sequence[str], *, module: str, extra: str, packages: dict[str, str]
) -> int:
    """Run the ``main`` of a module that needs packages of an extra."""
    missing = [name for name, imported in packages.items() if not is_installed(imported)]
    if missing:
        print(
            f"python -m selkern {extra} needs {', '.join(missing)}:"
            f" run `pip install selkern[{extra}]`",
            file=sys.stderr,
        )
        return 1
    if not is_installed("selkern._benchmarks"):
        print(
            f"python -m selkern {extra} needs selkern to be installed, and its source folder was"
            " imported: run `pip install --no-build-isolation --editable .` there",
            file=sys.stderr,
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
    """Run one command; everything after its name is the command's own."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(
        "python -m selkern", description="Class selectivity and covariance eigenspectra."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    for name, (summary, _) in COMMANDS.items():
        commands.add_parser(name, help=summary)
    chosen = parser.parse_args(arguments[:1]).command
    _, run = COMMANDS[chosen]
    return run(arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
