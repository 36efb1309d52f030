"""The command ``python -m selkern study spectrum``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from selkern.study.command import (
    add_training_options,
    choose_preset,
    make_parser,
    of_presets,
    run,
    seeds,
)
from selkern.study.images import load_study_images
from selkern.study.spectrum.objectives import REGULARIZERS
from selkern.study.spectrum.presets import by_name, choose
from selkern.study.spectrum.report import make_report
from selkern.study.spectrum.study import SpectrumStudy

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study; returns 1 if a network failed."""
    parser = make_parser(
        "spectrum",
        "Train networks with a 1/n spectrum imposed on their last hidden layer or on all of them, "
        "whitened, with Jacobian regularization and with none, measure their spectra and their "
        "robustness to attacks and noise, and hold that against what Nassar et al. (2020) found.",
    )
    presets = by_name()
    plans = {
        name: [p for preset in of_name for p in preset.networks.values()]
        for name, of_name in presets.items()
    }
    add_training_options(
        parser,
        seeds=of_presets(presets, lambda preset: preset.seeds),
        epochs=of_presets(plans, lambda plan: plan.recipe.epochs),
    )
    parser.add_argument(
        "--networks",
        nargs="+",
        metavar="NETWORK",
        help="which networks of the preset: mlp, cnn, or shallow, the paper's single hidden layer "
        "(default: mlp and cnn, where the preset has them)",
    )
    parser.add_argument(
        "--regularizers",
        nargs="+",
        choices=tuple(REGULARIZERS),
        metavar="REGULARIZER",
        help=f"which of {', '.join(repr(name) for name in REGULARIZERS)} (default: all)",
    )
    parser.add_argument(
        "--beta",
        type=float,
        help="strength of the 1/n penalty, summed over layers (default: "
        f"{of_presets(plans, lambda plan: plan.beta)})",
    )
    options = parser.parse_args(arguments)
    with parser.refusing("--data"):
        images = load_study_images(options.data, 0)
    with parser.refusing("--preset"):
        preset = choose(choose_preset(options), images.shape)
    if options.epochs:
        preset = preset.with_epochs(options.epochs)
    networks = _unique(options.networks or preset.default_networks)
    with parser.refusing("--networks"):
        preset.check(networks, images.shape, len(images.train))
    if options.beta is not None:
        with parser.refusing("--beta"):
            preset = preset.with_beta(options.beta)
    study = SpectrumStudy(
        options.data,
        preset,
        networks,
        _unique(options.regularizers or REGULARIZERS),
        seeds(options, preset.seeds),
        options.device,
    )
    return run(study, make_report, parser, options)


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
