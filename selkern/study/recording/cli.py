"""The command ``python -m selkern study recording``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from selkern import data
from selkern._command import CommandFailed, Parser, positive, print_json, progress, say
from selkern.study.command import make_parser, write
from selkern.study.folder import Folder
from selkern.study.recording.measure import STEPS, Measurement, Unmeasurable, measure
from selkern.study.recording.networks import load_networks
from selkern.study.recording.report import doubts, make_report, make_rows
from selkern.study.report import Report
from selkern.study.spectrum.summary import Network

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure a recording, and compare it with the networks of a spectrum study."""
    parser = _make_parser()
    options = parser.parse_args(arguments)
    _check(parser, options)
    networks = _load_networks(parser, options)
    recording = _load_recording(parser, options)
    with ExitStack() as held:
        with parser.refusing("--output"):
            held.enter_context(Folder(options.output).opened({"study": "recording"}))
        measured = _measure(recording, parser, options)
        report = make_report(_name(options), measured, networks, shuffles=options.shuffles)
        _write(report, measured, networks, parser, options)
    _show(report, measured, options)
    return 0


def _make_parser() -> Parser:
    parser = make_parser(
        "recording",
        "Measure a neural recording of two repeats by cross-validated PCA (Stringer et al. 2019), "
        "fit its power law, and draw it over the spectra of a spectrum study's networks.",
    )
    parser.add_argument(
        "--data",
        required=True,
        metavar="FILE",
        help="a .npy file [2, stimuli, neurons], one of [stimuli, neurons] with --second, a folder "
        "with two such, or a .mat file",
    )
    parser.add_argument(
        "--second", metavar="FILE", help="the .npy file of the second repeat, --data is the first's"
    )
    parser.add_argument(
        "--variables",
        nargs="+",
        metavar="NAME",
        help="variable of a .mat file that holds the recording, or the two that hold its repeats; "
        "needed where there is more than one choice",
    )
    parser.add_argument(
        "--shuffles", type=positive, default=10, help="of the repeats (default: %(default)s)"
    )
    parser.add_argument(
        "--first", type=positive, default=11, help="first rank of the fit (default: %(default)s)"
    )
    parser.add_argument(
        "--last", type=positive, default=500, help="last rank of the fit (default: %(default)s)"
    )
    parser.add_argument(
        "--spectra", type=Path, metavar="DIR", help="folder of a finished spectrum study"
    )
    return parser


def _check(parser: Parser, options: argparse.Namespace) -> None:
    if options.last <= options.first:
        parser.error(f"--last: must be above --first, {options.first}, got {options.last}")
    suffix = Path(options.data).suffix.lower()
    if options.variables is not None:
        if len(options.variables) > 2:
            parser.error(f"--variables: must be one name or two, got {len(options.variables)}")
        if suffix != ".mat":
            parser.error(f"--variables: must come with a .mat file as --data, got {options.data}")
    if options.second is not None and suffix != ".npy":
        parser.error(f"--second: must come with a .npy file as --data, got {options.data}")


def _load_networks(parser: Parser, options: argparse.Namespace) -> list[Network]:
    if options.spectra is None:
        return []
    with parser.refusing("--spectra"):
        return load_networks(options.spectra)


def _load_recording(parser: Parser, options: argparse.Namespace) -> data.Recording:
    names = [name for name in ("data", "second", "variables") if getattr(options, name) is not None]
    variables = None if options.variables is None else tuple(options.variables)
    with parser.refusing(", ".join(f"--{name}" for name in names)):
        return data.load_recording(
            options.data,
            options.second,
            variables=variables[0] if variables and len(variables) == 1 else variables,
        )


def _name(options: argparse.Namespace) -> str:
    files = [Path(file).name for file in (options.data, options.second) if file is not None]
    variables = f" ({', '.join(options.variables)})" if options.variables else ""
    return f"{' and '.join(files)}{variables}"


def _measure(recording: data.Recording, parser: Parser, options: argparse.Namespace) -> Measurement:
    try:
        recording = data.Recording(*(repeat.to(options.device) for repeat in recording))
        with progress("spectra", STEPS, quiet=options.quiet) as advance:
            return measure(
                recording,
                shuffles=options.shuffles,
                first=options.first,
                last=options.last,
                seed=options.seed,
                tick=lambda: advance(),
            )
    except Unmeasurable as error:
        parser.error(f"--data: {error}")
    except (ValueError, RuntimeError) as error:
        raise CommandFailed(f"the recording could not be measured: {error}") from error


def _write(
    report: Report,
    measured: Measurement,
    networks: Sequence[Network],
    parser: Parser,
    options: argparse.Namespace,
) -> None:
    try:
        from selkern.study.recording.figures import draw_comparison

        draw_comparison(measured, networks, options.output / report.figures[0].file)
        write(report, options.output, make_rows(measured, networks))
    except OSError as error:
        parser.error(f"--output: {error}")


def _show(report: Report, measured: Measurement, options: argparse.Namespace) -> None:
    if options.json:
        print_json(report.as_data())
    else:
        print("\n".join(table.markdown() for table in report.tables), end="")
        reasons = doubts(measured)
        if reasons:
            print(f"\nThe exponent is not to be relied on: {' and '.join(reasons)}.")
    say(f"written to {options.output}", quiet=options.quiet)
