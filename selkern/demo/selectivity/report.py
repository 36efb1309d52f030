"""The demo's results: as data, as a table and in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from selkern._benchmarks.tables import print_table
from selkern.demo.selectivity.evaluate import Evaluation
from selkern.demo.selectivity.timing import STEPS
from selkern.demo.selectivity.train import Training
from selkern.demo.timing import milliseconds_text

__all__ = ["Result", "alpha_text", "as_data", "conclusion", "print_results", "rises_with_alpha"]


@dataclass(frozen=True)
class Result:
    """Everything measured at one alpha."""

    training: Training
    evaluation: Evaluation
    step_milliseconds: dict[str, dict[str, float]]

    @property
    def alpha(self) -> float:
        return self.training.alpha


def alpha_text(alpha: float) -> str:
    """Alpha with its sign, which zero has not."""
    return f"{alpha:+g}" if alpha else "0"


def print_results(results: Sequence[Result]) -> None:
    """Print a column for every alpha."""
    columns = ["", *(f"alpha = {alpha_text(result.alpha)}" for result in results)]
    layers = list(results[0].evaluation.index)
    rows = [
        ["test accuracy", *(f"{r.evaluation.accuracy:.1%}" for r in results)],
        *(
            [f"SI of {layer}", *(f"{r.evaluation.index[layer]:.3f}" for r in results)]
            for layer in layers
        ),
        ["SI, mean over layers", *(f"{r.evaluation.overall_index:.3f}" for r in results)],
        ["dead units", *(f"{r.evaluation.dead_units} of {r.evaluation.units}" for r in results)],
        *(
            [f"step {name}, ms", *(milliseconds_text(r.step_milliseconds[name]) for r in results)]
            for name in STEPS
        ),
        ["largest loss difference", *(f"{r.training.largest_difference:.1e}" for r in results)],
    ]
    print_table("Digits: SI is the class selectivity index over the whole test set", columns, rows)


def rises_with_alpha(results: Sequence[Result]) -> bool:
    """Whether a higher alpha always gave a higher selectivity index."""
    indices = [result.evaluation.overall_index for result in _by_alpha(results)]
    return all(lower < higher for lower, higher in pairwise(indices))


def conclusion(results: Sequence[Result]) -> str:
    """What the numbers say."""
    verdict = "rises" if rises_with_alpha(results) else "does not rise"
    indices = ", ".join(
        f"{result.evaluation.overall_index:.3f} at alpha = {alpha_text(result.alpha)}"
        for result in _by_alpha(results)
    )
    comparisons = sum(result.training.comparisons for result in results)
    largest = max(result.training.largest_difference for result in results)
    return (
        f"Selectivity {verdict} with alpha: {indices}.\n"
        f"The fused loss and plain PyTorch's on the same activations differ by at most "
        f"{largest:.1e} in {comparisons} comparisons."
    )


def as_data(results: Sequence[Result]) -> dict[str, Any]:
    """Everything, ready for JSON."""
    return {
        "selectivity_rises_with_alpha": rises_with_alpha(results),
        "results": [_as_data(result) for result in results],
    }


def _as_data(result: Result) -> dict[str, Any]:
    evaluation, training = result.evaluation, result.training
    return {
        "alpha": result.alpha,
        "test_accuracy": evaluation.accuracy,
        "selectivity_index": evaluation.index,
        "mean_selectivity_index": evaluation.overall_index,
        "dead_units": evaluation.dead_units,
        "units": evaluation.units,
        "step_milliseconds": result.step_milliseconds,
        "final_loss": training.final_loss,
        "loss_comparisons": training.comparisons,
        "largest_loss_difference": training.largest_difference,
    }


def _by_alpha(results: Sequence[Result]) -> list[Result]:
    return sorted(results, key=lambda result: result.alpha)
