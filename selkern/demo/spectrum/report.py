"""The demo's results: as data, as tables and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selkern._benchmarks.compare import Comparison
from selkern._benchmarks.tables import print_table
from selkern.analysis import PowerLawFit
from selkern.demo.spectrum.evaluate import Evaluation
from selkern.demo.spectrum.photographs import PHOTOGRAPHS, PatchSpectrum
from selkern.demo.spectrum.timing import STEPS
from selkern.demo.spectrum.train import Training
from selkern.demo.timing import milliseconds, milliseconds_text

__all__ = ["Report", "Result"]

LATER_WITHIN = 0.15
FIRST_PART = 0.5


@dataclass(frozen=True)
class Result:
    """Everything measured of one network."""

    training: Training
    evaluation: Evaluation

    @property
    def whole(self) -> list[float]:
        """Exponent of every hidden layer over all penalised ranks."""
        return [float(layer.whole.exponent) for layer in self.evaluation.layers.values()]

    @property
    def short(self) -> list[float]:
        """Exponent of every hidden layer over the first of them."""
        return [float(layer.short.exponent) for layer in self.evaluation.layers.values()]

    def ranks(self, fit: str) -> str:
        """The ranks of the whole or the short fit."""
        layer = next(iter(self.evaluation.layers.values()))
        used: PowerLawFit = getattr(layer, fit)
        return f"ranks {used.first} to {used.last}"


@dataclass(frozen=True)
class Report:
    """All results, by mode of the regularizer where they are of a network."""

    photographs: PatchSpectrum
    results: Mapping[str, Result]
    times: Comparison
    test_images: int
    live_pixels: int
    threads: int

    def print(self) -> None:
        """Print all tables."""
        self._print_photographs()
        self._print_networks()
        self._print_times()

    def first_part(self, mode: str) -> float:
        """How much of the way to exponent 1 the first hidden layer has come."""
        without = self.results["without"].whole[0]
        return (without - self.results[mode].whole[0]) / (without - 1)

    def reached(self) -> bool:
        """Whether the exact mode gave the spectrum it was asked for."""
        exact = self.results["exact"]
        return _farthest(exact.whole[1:]) <= LATER_WITHIN and self.first_part("exact") >= FIRST_PART

    def conclusion(self) -> str:
        """What the numbers say."""
        exponents = "; ".join(
            f"{mode} {_exponents_text(result.whole)}" for mode, result in self.results.items()
        )
        ranks = self.results["without"].ranks("whole")
        lines = [
            f"Exponents of the hidden layers, {ranks}: {exponents}.",
            *(self._of_mode(mode) for mode in self.results if mode != "without"),
            self._of_times(),
            self._of_comparisons(),
        ]
        return "\n".join(lines)

    def as_data(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        photographs = self.photographs
        return {
            "spectrum_reached": self.reached(),
            "conclusion": self.conclusion().splitlines(),
            "photographs": {
                "names": PHOTOGRAPHS,
                "patches": photographs.patches,
                "pixels": photographs.pixels,
                "participation_ratio": photographs.participation_ratio,
                "fit": _fit_data(photographs.fit),
                "spectrum": photographs.spectrum.tolist(),
            },
            "test_images": self.test_images,
            "live_pixels": self.live_pixels,
            "networks": {mode: _network_data(result) for mode, result in self.results.items()},
            "step_milliseconds": {
                name: milliseconds(self.times.time(name)) for name in self.times.seconds
            },
        }

    def _print_photographs(self) -> None:
        photographs = self.photographs
        print_table(
            f"Photographs: {', '.join(PHOTOGRAPHS)}",
            ["grey patches", "pixels", "exponent", "ranks of the fit", "r2", "participation ratio"],
            [
                [
                    f"{photographs.patches}",
                    f"{photographs.pixels}",
                    f"{photographs.fit.exponent:.2f}",
                    f"{photographs.fit.first} to {photographs.fit.last}",
                    f"{photographs.fit.r2:.4f}",
                    f"{photographs.participation_ratio:.2f}",
                ]
            ],
        )

    def _print_networks(self) -> None:
        results = self.results.values()
        without = self.results["without"]
        rows = [["test accuracy", *(f"{result.evaluation.accuracy:.1%}" for result in results)]]
        for position, name in enumerate(without.evaluation.layers):
            rows += [
                [
                    f"exponent of {name}, {without.ranks('whole')}",
                    *(f"{result.whole[position]:.2f}" for result in results),
                ],
                [
                    f"exponent of {name}, {without.ranks('short')}",
                    *(f"{result.short[position]:.2f}" for result in results),
                ],
            ]
        rows += [
            ["training, s", *(f"{result.training.seconds:.1f}" for result in results)],
            [
                "largest loss difference",
                *(_difference_text(result.training) for result in results),
            ],
        ]
        print_table("Digits: spectra of the whole training set", ["", *self.results], rows)

    def _print_times(self) -> None:
        rows = []
        for name in self.times.seconds:
            row = [STEPS[name], milliseconds_text(milliseconds(self.times.time(name)))]
            if name != "plain":
                added = self.times.added(name, "plain")
                row += [
                    f"+{milliseconds_text(milliseconds(added))}",
                    f"{self.times.added_share(name, 'published', 'plain').median:.0f}%",
                ]
            rows.append(row if len(row) == 4 else [*row, "", ""])
        columns = ["step", "ms", "added, ms", "of vectorised PyTorch, frozen"]
        print_table(f"Time of a training step, threads: {self.threads}", columns, rows)

    def _of_mode(self, mode: str) -> str:
        result, without = self.results[mode], self.results["without"]
        right = round(self.test_images * (result.evaluation.accuracy - without.evaluation.accuracy))
        return (
            f"{mode.capitalize()}: the second and later hidden layers come within "
            f"{_farthest(result.whole[1:]):.2f} of exponent 1 "
            f"({result.ranks('short')}: {_farthest(result.short[1:]):.2f}; without "
            f"{_farthest(without.whole[1:]):.2f} and {_farthest(without.short[1:]):.2f}), and the "
            f"first, whose input has {self.live_pixels} live pixels, "
            f"{self.first_part(mode):.0%} of the way there. "
            f"Of {self.test_images} test images {abs(right)} {'fewer' if right < 0 else 'more'} "
            "are right than without."
        )

    def _of_times(self) -> str:
        plain = milliseconds(self.times.time("plain"))["median"]
        added = {
            name: milliseconds(self.times.added(name, "plain"))["median"]
            for name in self.times.seconds
            if name != "plain"
        }
        return (
            f"To a step of {plain:.1f} ms the exact mode adds {added['exact']:.1f} ms (in PyTorch "
            f"{added['exact in PyTorch']:.1f} ms) and the frozen one {added['frozen']:.1f} ms (the "
            f"published method in vectorised PyTorch {added['published']:.1f} ms, one eigenvalue "
            f"after the other {added['published, one by one']:.1f} ms)."
        )

    def _of_comparisons(self) -> str:
        trainings = [result.training for result in self.results.values()]
        comparisons = sum(training.comparisons for training in trainings)
        if comparisons == 0:
            return "The training was too short for a comparison of losses with plain PyTorch."
        largest = max(training.largest_difference for training in trainings)
        return (
            "The fused loss and plain PyTorch's on the same activations differ by at most "
            f"{largest:.1e} of the loss in {comparisons} comparisons."
        )


def _farthest(exponents: Sequence[float]) -> float:
    return max(abs(exponent - 1) for exponent in exponents)


def _exponents_text(exponents: Sequence[float]) -> str:
    return ", ".join(f"{exponent:.2f}" for exponent in exponents)


def _difference_text(training: Training) -> str:
    return f"{training.largest_difference:.1e}" if training.comparisons else "-"


def _network_data(result: Result) -> dict[str, Any]:
    training = result.training
    return {
        "test_accuracy": result.evaluation.accuracy,
        "layers": {
            name: {
                "whole": _fit_data(layer.whole),
                "short": _fit_data(layer.short),
                "spectrum": layer.spectrum.tolist(),
            }
            for name, layer in result.evaluation.layers.items()
        },
        "training_seconds": training.seconds,
        "loss_comparisons": training.comparisons,
        "largest_loss_difference": training.largest_difference,
    }


def _fit_data(fit: PowerLawFit) -> dict[str, float]:
    return {
        "exponent": float(fit.exponent),
        "intercept": float(fit.intercept),
        "r2": float(fit.r2),
        "first": fit.first,
        "last": fit.last,
    }
