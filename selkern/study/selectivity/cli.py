"""The command ``python -m selkern study selectivity``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from selkern.study.command import (
    add_training_options,
    choose_preset,
    make_parser,
    of_presets,
    run,
    seeds,
)
from selkern.study.images import image_shape
from selkern.study.selectivity.presets import by_name, choose
from selkern.study.selectivity.report import make_report
from selkern.study.selectivity.study import SelectivityStudy

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study; returns 1 if a network failed."""
    parser = make_parser(
        "selectivity",
        "Train networks at several strengths of the selectivity regularizer, measure their "
        "selectivity, their robustness to corruptions and attacks and the dimensionality of the "
        "change that these cause, and hold that against what Leavitt & Morcos (2020) found.",
    )
    presets = by_name()
    add_training_options(
        parser,
        seeds=of_presets(presets, lambda preset: preset.seeds),
        epochs=of_presets(presets, lambda preset: preset.recipe.epochs),
    )
    alphas = of_presets(presets, lambda preset: " ".join(f"{a:g}" for a in preset.alphas))
    parser.add_argument(
        "--alphas",
        type=float,
        nargs="+",
        metavar="ALPHA",
        help=f"strengths; a negative one lowers selectivity (default: {alphas})",
    )
    parser.add_argument(
        "--corrupted",
        metavar="DIR",
        help="folder with CIFAR-10-C or Tiny ImageNet-C as published (default: the test images "
        "are corrupted here)",
    )
    options = parser.parse_args(arguments)
    with parser.refusing("--data"):
        shape = image_shape(options.data)
    with parser.refusing("--preset"):
        preset = choose(choose_preset(options), shape)
    if not all(map(math.isfinite, options.alphas or ())):
        parser.error(f"--alphas: alpha must be finite, got {options.alphas}")
    if options.alphas:
        preset = replace(preset, alphas=tuple(sorted(set(options.alphas))))
    if options.epochs:
        preset = replace(preset, recipe=replace(preset.recipe, epochs=options.epochs))
    study = SelectivityStudy(
        options.data, preset, seeds(options, preset.seeds), options.device, options.corrupted
    )
    with parser.refusing("--corrupted"):
        study.check()
    return run(study, make_report, parser, options)
