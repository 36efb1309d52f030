"""The command ``python -m selkern demo attack``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict

from selkern._benchmarks import machine
from selkern._command import Parser, current, print_json, progress, say, threads, write_json
from selkern.demo.attack.evaluate import Evaluation, evaluate_under_attack
from selkern.demo.attack.figure import draw_accuracy
from selkern.demo.attack.networks import KINDS, Kind, Recipe, load_digits, train
from selkern.demo.attack.report import Report, title
from selkern.demo.attack.steps import watch_steps
from selkern.demo.command import make_parser, read_options
from selkern.demo.data import Digits

__all__ = ["main"]

EPOCHS, QUICK_EPOCHS = 15, 6
NETWORKS, QUICK_NETWORKS = 3, 1
STEPS, QUICK_STEPS = 200, 50
STEPS_OF_PGD, QUICK_STEPS_OF_PGD = 20, 10


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns 1 if something that it is to show did not hold."""
    options = read_options(_parser(), arguments)
    networks = QUICK_NETWORKS if options.quick else NETWORKS
    recipe = Recipe(epochs=options.epochs, seed=options.seed, networks=networks)
    with threads(options.threads), current(options.device):
        report = _measure(recipe, options)
        data = {"recipe": asdict(recipe), **machine.describe(options.device), **report.as_data()}
    write_json(data, options.output / "demo.json")
    lines = {
        title(kind): [[result.clean, *result.pgd.values()] for result in results]
        for kind, results in report.results.items()
    }
    draw_accuracy(lines, recipe.eps, options.output / "accuracy.png")
    if options.json:
        print_json(data)
    else:
        report.print()
        print(report.conclusion())
    say(f"written to {options.output}", quiet=options.quiet)
    return 0 if all(report.shown().values()) else 1


def _parser() -> Parser:
    return make_parser(
        "attack",
        "Train a small network on scikit-learn's digits, attacked by PGD in every step, with the "
        "selectivity regularizer at alpha = -2, 0 and +2; measure accuracy under PGD and FGSM at "
        "several eps, memory over many steps, and the attack's share of a step.",
        epochs=EPOCHS,
        quick_epochs=QUICK_EPOCHS,
        # More would only wait for one another in a network this small.
        threads=1,
    )


def _measure(recipe: Recipe, options: argparse.Namespace) -> Report:
    digits = load_digits().to(options.device)
    count = QUICK_STEPS if options.quick else STEPS
    say(f"memory and time of {count} steps", quiet=options.quiet)
    # First, while nothing else has left memory to be used again.
    steps = watch_steps(digits.train, recipe, count)
    steps_of_pgd = QUICK_STEPS_OF_PGD if options.quick else STEPS_OF_PGD
    results = {kind: _train(kind, digits, recipe, steps_of_pgd, options) for kind in KINDS}
    return Report(results, steps, recipe, steps_of_pgd, test_images=len(digits.test))


def _train(
    kind: Kind, digits: Digits, recipe: Recipe, steps_of_pgd: int, options: argparse.Namespace
) -> list[Evaluation]:
    steps = len(recipe.seeds) * recipe.epochs * recipe.steps_of_an_epoch(digits.train)
    results = []
    with progress(title(kind), steps, quiet=options.quiet) as at_step:
        for seed in recipe.seeds:
            model = train(kind, seed, digits.train, recipe, at_step)
            results.append(evaluate_under_attack(model, digits.test, steps_of_pgd, seed))
    return results
