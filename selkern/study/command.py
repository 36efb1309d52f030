"""What the commands of all studies share: options, the run, and what it leaves."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch

import selkern
from selkern import _command
from selkern._command import (
    Parser,
    as_json,
    positive,
    print_json,
    progress,
    say,
    write_json,
    write_whole,
)
from selkern.study.base import Cell, Study
from selkern.study.findings import findings_table
from selkern.study.folder import Folder, Row
from selkern.study.processes import cores, run_cells
from selkern.study.report import Report

__all__ = [
    "PRESETS",
    "PROGRAM",
    "add_training_options",
    "choose_preset",
    "make_parser",
    "of_presets",
    "run",
    "seeds",
    "show",
    "write",
]

PROGRAM = "python -m selkern study"
PRESETS = ("paper", "small")

AnyStudy = TypeVar("AnyStudy", bound=Study)
AnyPreset = TypeVar("AnyPreset")


def make_parser(name: str, description: str) -> Parser:
    """A parser of the options that every study has."""
    parser = _command.make_parser(f"{PROGRAM} {name}", description)
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(f"selkern-study-{name}"),
        help="folder for the results; a study that was stopped goes on there "
        "(default: %(default)s)",
    )
    return parser


def of_presets(
    presets: Mapping[str, Sequence[AnyPreset]], value: Callable[[AnyPreset], object]
) -> str:
    """What a preset has where an option is not given, of those under each name, for ``--help``."""
    told = []
    for name, of_name in presets.items():
        there_are = dict.fromkeys(str(value(preset)) for preset in of_name)
        told.append(f"{' or '.join(there_are)} in {name}")
    return f"the preset's: {', '.join(told)}"


def add_training_options(parser: Parser, *, seeds: str, epochs: str) -> None:
    """Add the options of studies that train networks; ``seeds`` and ``epochs`` are for the help."""
    parser.add_argument(
        "--data",
        default="digits",
        help="digits, scikit-learn's, or a folder with MNIST, CIFAR-10 or Tiny ImageNet as "
        "published (default: %(default)s)",
    )
    parser.add_argument(
        "--preset",
        choices=PRESETS,
        help="networks and schedules of the paper, or small ones (default: small for the digits, "
        "paper otherwise)",
    )
    parser.add_argument(
        "--seeds", type=positive, help=f"number of networks of each kind (default: {seeds})"
    )
    parser.add_argument(
        "--epochs", type=positive, help=f"of training each network (default: {epochs})"
    )
    parser.add_argument(
        "--processes",
        type=positive,
        help="networks trained at a time (default: the number of cores, on a GPU 1)",
    )
    parser.add_argument(
        "--threads", type=positive, help="threads of each (default: its share of the cores)"
    )


def choose_preset(options: argparse.Namespace) -> str:
    """The preset that was asked for, or the one for these images."""
    preset: str | None = options.preset
    return preset or ("small" if options.data == "digits" else "paper")


def seeds(options: argparse.Namespace, count: int) -> range:
    """The seeds of the networks of each kind."""
    return range(options.seed, options.seed + (options.seeds or count))


def run(
    study: AnyStudy,
    make_report: Callable[[AnyStudy, Sequence[Row], Path], Report],
    parser: Parser,
    options: argparse.Namespace,
) -> int:
    """Finish a study and write its report; returns 1 if a network failed.

    Parameters
    ----------
    study : Study
        What to do.
    make_report : callable
        ``make_report(study, rows, path)``; it draws the report's figures into the folder.
    parser : Parser
        Of the command, for refusals.
    options : argparse.Namespace
        What it read.
    """
    folder = Folder(options.output)
    processes = options.processes or (1 if options.device.type == "cuda" else cores())
    threads = options.threads or max(1, cores() // processes)
    try:
        with folder.opened(study.settings()):
            failed = _finish(study, folder, processes, threads, options.quiet)
            rows = study.rows(folder)
            report = _completed(make_report(study, rows, options.output), failed, options)
            write(report, options.output, rows)
    except (OSError, ValueError) as error:
        parser.error(f"--output: {error}")
    show(report, options)
    for cell, text in failed.items():
        say(f"{parser.prog}: {cell.kind}, seed {cell.seed}: {text}")
    return 1 if failed else 0


def _completed(report: Report, failed: dict[Cell, str], options: argparse.Namespace) -> Report:
    """Add what every report says: on what it was made, and what is missing."""
    made = (
        f"Made by selkern {selkern.__version__} with torch {torch.__version__} and Python "
        f"{platform.python_version()} on {options.device.type}."
    )
    missing = [
        f"{cell.kind}, seed {cell.seed}, failed and is left out: {text}"
        for cell, text in failed.items()
    ]
    return replace(report, about=[*report.about, made], remarks=[*missing, *report.remarks])


def _finish(
    study: Study, folder: Folder, processes: int, threads: int, quiet: bool
) -> dict[Cell, str]:
    missing = study.missing(folder)
    for cell in study.cells():
        if cell not in missing:
            # What a kill between the last part and the end of its cell leaves.
            folder.remove(cell.name, "checkpoint")
    count = len(study.cells())
    if len(missing) < count:
        say(f"{count - len(missing)} of {count} networks are finished already", quiet=quiet)
    if not missing:
        return {}
    untrained = [cell for cell in missing if not folder.is_done(cell.name, study.parts[0])]
    if untrained:
        epochs = " or ".join(map(str, sorted({study.epochs(cell) for cell in untrained})))
        trained = f"{_counted(len(untrained), 'network')}, each for {_counted(epochs, 'epoch')}"
        say(f"training {trained}", quiet=quiet)
    title = _counted(len(missing), "network")
    with progress(title, sum(missing.values()), quiet=quiet) as advance:
        return run_cells(
            study,
            missing,
            folder,
            processes=min(processes, len(missing)),
            threads=threads,
            tick=lambda steps: advance(steps=steps),
        )


def _counted(count: int | str, what: str) -> str:
    return f"{count} {what}{'' if str(count) == '1' else 's'}"


def write(report: Report, path: Path, rows: Sequence[Row]) -> None:
    """Write ``report.md``, ``summary.json`` and ``results.jsonl``."""
    lines = "".join(f"{as_json(row)}\n" for row in rows)
    write_whole(path / "results.jsonl", lines.encode())
    write_json(report.as_data(), path / "summary.json")
    write_whole(path / "report.md", report.markdown().encode())


def show(report: Report, options: argparse.Namespace) -> None:
    """Print the findings."""
    if options.json:
        print_json(report.as_data())
    else:
        print(findings_table(report.findings), end="")
    say(f"written to {options.output}", quiet=options.quiet)
