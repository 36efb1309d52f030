"""The command ``python -m selkern demo``."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

__all__ = ["DEMOS", "main"]

DEMOS = {
    "selectivity": "a convolutional network at three strengths of the selectivity regularizer",
    "spectrum": "natural images, and a network with the 1/n regularizer on every hidden layer",
}
DEFAULT = "selectivity"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo that the first argument names; returns 1 if it did not show its effect."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    name = DEFAULT
    if arguments and not arguments[0].startswith("-"):
        name = _parser().parse_args(arguments[:1]).demo
        arguments = arguments[1:]
    run: int = importlib.import_module(f"selkern.demo.{name}.cli").main(arguments)
    return run


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m selkern demo")
    parser.add_argument("demo", choices=DEMOS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
