"""The command ``python -m selkern study``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from selkern._command import Parser

__all__ = ["PROGRAM", "STUDIES", "main"]

PROGRAM = "python -m selkern study"
STUDIES = {
    "selectivity": "class selectivity against robustness to corruptions and attacks",
    "spectrum": "a 1/n spectrum, and what else there is, against robustness to attacks and noise",
    "recording": "a two-repeat neural recording by cross-validated PCA, over networks' spectra",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study that the first argument names."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    name = _parser().parse_args(arguments[:1]).study
    run: int = importlib.import_module(f"selkern.study.{name}.cli").main(arguments[1:])
    return run


def _parser() -> Parser:
    parser = Parser(
        PROGRAM,
        description="Repeat what a paper found: on your own images, or on scikit-learn's digits.",
        epilog=f"`{PROGRAM} selectivity --help` shows that study's own options.",
    )
    studies = parser.add_subparsers(title="studies", dest="study", metavar="study", required=True)
    for name, summary in STUDIES.items():
        studies.add_parser(name, help=summary)
    return parser
