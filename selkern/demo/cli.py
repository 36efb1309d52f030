"""The command ``python -m selkern demo``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from selkern._benchmarks import machine
from selkern._benchmarks.measure import measure_all
from selkern._benchmarks.report import print_targets
from selkern.demo.data import Digits, load_digits
from selkern.demo.evaluate import evaluate
from selkern.demo.figure import draw_selectivity
from selkern.demo.report import (
    Result,
    alpha_text,
    as_data,
    conclusion,
    print_results,
    rises_with_alpha,
)
from selkern.demo.timing import time_steps
from selkern.demo.train import Recipe, train

__all__ = ["main"]

ALPHAS = (-2.0, 0.0, 2.0)
EPOCHS, QUICK_EPOCHS = 30, 6
ROUNDS, QUICK_ROUNDS = 40, 10


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns 1 if selectivity did not rise with alpha."""
    options = _parser().parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    epochs = options.epochs or (QUICK_EPOCHS if options.quick else EPOCHS)
    recipe = Recipe(epochs=epochs, seed=options.seed)
    digits = load_digits()

    results = _train_all(digits, recipe, options)
    print_results(results)
    data = {"recipe": asdict(recipe), **machine.describe(), **as_data(results)}
    _write(data, options.output / "demo.json")
    draw_selectivity(
        {result.alpha: result.evaluation.index for result in results},
        options.output / "selectivity.png",
    )
    if not options.no_benchmark:
        benchmark = measure_all(quick=True, say=_say)
        print_targets(benchmark)
        _write(benchmark, options.output / "benchmark.json")
    print(conclusion(results))
    print(f"written to {options.output}")
    return 0 if rises_with_alpha(results) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m selkern demo",
        description="Train a small network on scikit-learn's digits at alpha = -2, 0 and +2 with "
        "the fused selectivity regularizer, compare it with plain PyTorch, and time both.",
    )
    parser.add_argument(
        "--epochs", type=_positive, help=f"{EPOCHS}, or {QUICK_EPOCHS} with --quick"
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("selkern-demo"),
        help="folder for the results (default: %(default)s)",
    )
    parser.add_argument("--quick", action="store_true", help="fewer epochs and timed steps")
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")
    parser.add_argument("--no-benchmark", action="store_true", help="train only")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def _train_all(digits: Digits, recipe: Recipe, options: argparse.Namespace) -> list[Result]:
    rounds = QUICK_ROUNDS if options.quick else ROUNDS
    steps = recipe.steps(digits.train)
    results = []
    for alpha in ALPHAS:
        with _progress(f"alpha = {alpha_text(alpha)}", steps, options.no_progress) as after_step:
            training = train(alpha, digits.train, recipe, after_step)
        evaluation = evaluate(training.model, digits.test)
        batch = next(digits.train.batches(recipe.batch_size))
        times = time_steps(training.model, alpha, batch, recipe, rounds)
        results.append(Result(training, evaluation, times))
    return results


@contextmanager
def _progress(title: str, steps: int, off: bool) -> Iterator[Callable[[float], object]]:
    """A progress bar, where standard error is a terminal."""
    try:
        from tqdm import tqdm
    except ImportError:
        _say(title)
        yield lambda loss: None
        return
    with tqdm(desc=title, total=steps, disable=True if off else None) as bar:

        def after_step(loss: float) -> None:
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update()

        if bar.disable:
            _say(f"{title}: {steps} steps")
        yield after_step


def _write(data: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
