"""What the commands of all demos have in common: options and their folder."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from selkern import _command
from selkern._command import Parser, make_folder, positive
from selkern.demo.cli import DEFAULT, DEMOS, PROGRAM

__all__ = ["make_parser", "read_options"]


def make_parser(
    name: str, description: str, *, epochs: int, quick_epochs: int, threads: int | None
) -> Parser:
    """A parser of the options that every demo has, with its numbers of epochs and threads."""
    others = ", ".join(f"`{PROGRAM} {other} --help`" for other in DEMOS if other != name)
    parser = _command.make_parser(f"{PROGRAM} {name}", description, epilog=f"See also {others}.")
    parser.set_defaults(full_epochs=epochs, quick_epochs=quick_epochs)
    parser.add_argument("--epochs", type=positive, help=f"{epochs}, or {quick_epochs} with --quick")
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
    parser.add_argument(
        "--quick", action="store_true", help="fewer epochs, networks and timed steps"
    )
    return parser


def read_options(parser: Parser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the options, decide on the epochs and make the folder for the results."""
    options, unknown = parser.parse_known_args(arguments)
    late = [name for name in DEMOS if name in unknown]
    if late:
        parser.exit(2, f"{PROGRAM}: the demo comes before its options: `{PROGRAM} {late[0]} ...`\n")
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if options.epochs is None:
        options.epochs = options.quick_epochs if options.quick else options.full_epochs
    make_folder(options.output, parser)
    return options
