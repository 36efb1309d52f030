"""The command ``python -m selkern study recording``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from selkern import data
from selkern._command import positive, print_json, progress, say
from selkern.study.command import make_parser, write
from selkern.study.recording.measure import STEPS, measure
from selkern.study.recording.networks import load_networks
from selkern.study.recording.report import make_report, make_rows

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure a recording, and compare it with the networks of a spectrum study."""
    parser = make_parser(
        "recording",
        "Measure a neural recording of two repeats by cross-validated PCA (Stringer et al. 2019), "
        "fit its power law, and draw it over the spectra of a spectrum study's networks.",
    )
    parser.add_argument(
        "--data",
        required=True,
        metavar="FILE",
        help="a .npy file [2, stimuli, neurons], a folder with two of [stimuli, neurons], or a "
        ".mat file",
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
    options = parser.parse_args(arguments)
    networks = []
    if options.spectra is not None:
        with parser.refusing("--spectra"):
            networks = load_networks(options.spectra)
    with parser.refusing("--data"):
        recording = data.load_recording(options.data)
        recording = data.Recording(*(repeat.to(options.device) for repeat in recording))
        with progress("spectra", STEPS, quiet=options.quiet) as advance:
            measured = measure(
                recording,
                shuffles=options.shuffles,
                first=options.first,
                last=options.last,
                seed=options.seed,
                tick=lambda: advance(),
            )
    report = make_report(Path(options.data).name, measured, networks, shuffles=options.shuffles)
    with parser.refusing("--output"):
        from selkern.study.recording.figures import draw_comparison

        options.output.mkdir(parents=True, exist_ok=True)
        draw_comparison(measured, networks, options.output / report.figures[0].file)
        write(report, options.output, make_rows(measured, networks))
    if options.json:
        print_json(report.as_data())
    else:
        print(report.tables[0].markdown(), end="")
    say(f"written to {options.output}", quiet=options.quiet)
    return 0
