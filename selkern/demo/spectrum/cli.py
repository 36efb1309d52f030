"""The command ``python -m selkern demo spectrum``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict

from torch import Tensor

from selkern._benchmarks import machine
from selkern._command import Parser, current, print_json, progress, say, threads, write_json
from selkern.demo.command import make_parser, read_options
from selkern.demo.data import Digits, load_digits
from selkern.demo.spectrum.evaluate import evaluate
from selkern.demo.spectrum.figure import draw_spectra
from selkern.demo.spectrum.photographs import load_patches, spectrum_of_patches
from selkern.demo.spectrum.report import Report, Result
from selkern.demo.spectrum.timing import time_steps
from selkern.demo.spectrum.train import MODES, Recipe, train

__all__ = ["main"]

EPOCHS, QUICK_EPOCHS = 150, 80
ROUNDS, QUICK_ROUNDS = 60, 5
PATCH_SIZE, QUICK_PATCH_SIZE = 32, 16
PATCHES_EACH, QUICK_PATCHES_EACH = 2000, 400


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns 1 if the exact mode did not give the spectrum it was asked for."""
    options = read_options(_parser(), arguments)
    recipe = Recipe(epochs=options.epochs, seed=options.seed)
    with threads(options.threads), current(options.device):
        report = _measure(recipe, options)
        data = {"recipe": asdict(recipe), **machine.describe(options.device), **report.as_data()}
    write_json(data, options.output / "spectrum.json")
    draw_spectra(_panels(report), options.output / "spectrum.png")
    if options.json:
        print_json(data)
    else:
        report.print()
        print(report.conclusion())
    say(f"written to {options.output}", quiet=options.quiet)
    return 0 if report.reached() else 1


def _parser() -> Parser:
    return make_parser(
        "spectrum",
        "Fit a power law to the spectrum of scikit-image's photographs, and train a small network "
        "on scikit-learn's digits without and with the fused 1/n regularizer, exact and frozen; "
        "compare it with plain PyTorch, and time both.",
        epochs=EPOCHS,
        quick_epochs=QUICK_EPOCHS,
        # More would only wait for one another in a network this small.
        threads=1,
    )


def _measure(recipe: Recipe, options: argparse.Namespace) -> Report:
    digits = load_digits().to(options.device)
    say("photographs", quiet=options.quiet)
    size = QUICK_PATCH_SIZE if options.quick else PATCH_SIZE
    each = QUICK_PATCHES_EACH if options.quick else PATCHES_EACH
    photographs = spectrum_of_patches(load_patches(size, each, options.seed).to(options.device))
    results = {mode: _train(mode, digits, recipe, options) for mode in MODES}
    rounds = QUICK_ROUNDS if options.quick else ROUNDS
    return Report(
        photographs=photographs,
        results=results,
        times=time_steps(results["exact"].training.model, digits.train, recipe, rounds),
        test_images=len(digits.test),
        live_pixels=int((digits.train.images.flatten(1).var(0) > 0).sum()),
        threads=options.threads,
    )


def _train(mode: str, digits: Digits, recipe: Recipe, options: argparse.Namespace) -> Result:
    with progress(mode, recipe.steps(digits.train), quiet=options.quiet) as after_step:
        training = train(mode, digits.train, recipe, after_step)
    return Result(training, evaluate(training.model, digits))


def _panels(report: Report) -> dict[str, dict[str, Tensor]]:
    panels = {"photographs": {"patches": report.photographs.spectrum}}
    for name in report.results["without"].evaluation.layers:
        panels[name] = {
            mode: result.evaluation.layers[name].spectrum for mode, result in report.results.items()
        }
    return panels
