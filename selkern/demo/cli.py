"""The command ``python -m selkern demo``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from selkern._command import Parser

__all__ = ["DEFAULT", "DEMOS", "PROGRAM", "main"]

PROGRAM = "python -m selkern demo"
DEMOS = {
    "selectivity": "a convolutional network at three strengths of the selectivity regularizer",
    "spectrum": "natural images, and a network with the 1/n regularizer on every hidden layer",
    "attack": "adversarial training with the selectivity regularizer: accuracy, memory, time",
}
DEFAULT = "selectivity"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo that the first argument names; returns 1 if it did not show its effect."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    is_named = bool(arguments) and not arguments[0].startswith("-")
    if is_named or arguments[:1] in (["-h"], ["--help"]):
        name = _parser().parse_args(arguments[:1]).demo
        arguments = arguments[1:]
    else:
        name = DEFAULT
    run: int = importlib.import_module(f"selkern.demo.{name}.cli").main(arguments)
    return run


def _parser() -> Parser:
    parser = Parser(
        PROGRAM,
        usage="%(prog)s [demo] [options]",
        description="Train small networks on real digits with a regularizer of selkern.",
        epilog=f"`{PROGRAM} spectrum --help` shows that demo's own options. Where no demo is "
        f"named, {DEFAULT} runs.",
    )
    demos = parser.add_subparsers(title="demos", dest="demo", metavar="demo")
    for name, summary in DEMOS.items():
        demos.add_parser(name, help=summary)
    return parser


if __name__ == "__main__":
    sys.exit(main())
