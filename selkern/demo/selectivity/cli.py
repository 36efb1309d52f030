"""The command ``python -m selkern demo selectivity``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

from selkern._benchmarks import machine
from selkern._benchmarks.measure import measure_all, works_of
from selkern._benchmarks.report import print_targets
from selkern._benchmarks.works import POOLING, SELECTIVITY
from selkern._benchmarks.works.training import TrainingStep
from selkern._command import Parser, current, print_json, progress, say, threads, write_json
from selkern.demo.command import make_parser, read_options
from selkern.demo.data import Digits, load_digits
from selkern.demo.selectivity.evaluate import evaluate
from selkern.demo.selectivity.figure import draw_selectivity
from selkern.demo.selectivity.report import (
    Result,
    alpha_text,
    as_data,
    conclusion,
    print_results,
    rises_with_alpha,
)
from selkern.demo.selectivity.timing import time_steps
from selkern.demo.selectivity.train import Recipe, train

__all__ = ["main"]

ALPHAS = (-2.0, 0.0, 2.0)
EPOCHS, QUICK_EPOCHS = 30, 6
ROUNDS, QUICK_ROUNDS = 40, 10


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns 1 if selectivity did not rise with alpha."""
    options = read_options(_parser(), arguments)
    with threads(options.threads), current(options.device):
        results = _measure(options)
    say(f"written to {options.output}", quiet=options.quiet)
    return 0 if rises_with_alpha(results) else 1


def _parser() -> Parser:
    parser = make_parser(
        "selectivity",
        "Train a small network on scikit-learn's digits at alpha = -2, 0 and +2 with the fused "
        "selectivity regularizer, compare it with plain PyTorch, and time both.",
        epochs=EPOCHS,
        quick_epochs=QUICK_EPOCHS,
        threads=None,
    )
    parser.add_argument("--no-benchmark", action="store_true", help="train only")
    return parser


def _measure(options: argparse.Namespace) -> list[Result]:
    recipe = Recipe(epochs=options.epochs, seed=options.seed)
    results = _train_all(load_digits().to(options.device), recipe, options)
    data = {"recipe": asdict(recipe), **machine.describe(options.device), **as_data(results)}
    write_json(data, options.output / "demo.json")
    draw_selectivity(
        {result.alpha: result.evaluation.index for result in results},
        options.output / "selectivity.png",
    )
    if options.json:
        print_json(data)
    else:
        print_results(results)
    if not options.no_benchmark:
        _benchmark(options)
    if not options.json:
        print(conclusion(results))
    return results


def _benchmark(options: argparse.Namespace) -> None:
    there = works_of(options.device)
    benchmark = measure_all(
        [work.name for work in (*POOLING, *SELECTIVITY, TrainingStep) if work.name in there],
        device=options.device,
        quick=True,
        say=partial(say, quiet=options.quiet),
    )
    write_json(benchmark, options.output / "benchmark.json")
    if not options.json:
        print_targets(benchmark)


def _train_all(digits: Digits, recipe: Recipe, options: argparse.Namespace) -> list[Result]:
    rounds = QUICK_ROUNDS if options.quick else ROUNDS
    steps = recipe.steps(digits.train)
    results = []
    for alpha in ALPHAS:
        with progress(f"alpha = {alpha_text(alpha)}", steps, quiet=options.quiet) as after_step:
            training = train(alpha, digits.train, recipe, after_step)
        evaluation = evaluate(training.model, digits.test)
        batch = next(digits.train.batches(recipe.batch_size))
        times = time_steps(training.model, alpha, batch, recipe, rounds)
        results.append(Result(training, evaluation, times))
    return results
