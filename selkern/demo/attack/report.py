"""The demo's results: as data, as tables and in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import mean
from typing import Any

import numpy as np

from selkern._benchmarks.tables import print_table
from selkern.demo.attack.evaluate import EPS, Evaluation
from selkern.demo.attack.networks import KINDS, Kind, Recipe
from selkern.demo.attack.steps import ALPHA, ATTACK, REST, STEP, Steps
from selkern.demo.selectivity.report import alpha_text
from selkern.demo.timing import milliseconds, milliseconds_text

__all__ = ["Report", "title"]

PLAIN = Kind(0.0)
UNATTACKED = Kind(0.0, is_attacked=False)
REGULARIZED = tuple(kind for kind in KINDS if kind.alpha)


def title(kind: Kind) -> str:
    """What a kind of network is called."""
    text = f"alpha = {alpha_text(kind.alpha)}"
    return text if kind.is_attacked else f"{text}, no attack in training"


@dataclass(frozen=True)
class Report:
    """All results; for each kind of network, those of its networks in the order of the seeds."""

    results: Mapping[Kind, Sequence[Evaluation]]
    steps: Steps
    recipe: Recipe
    steps_of_pgd: int
    test_images: int

    def shown(self) -> dict[str, bool]:
        """What the demo is to show, and whether it did."""
        return {
            "memory_is_flat": self.steps.memory_is_flat(),
            "accuracy_falls_with_eps": all(map(self._falls, self.results)),
            "images_stay_in_the_ball": self._beyond() == 0,
            "attacks_in_training_help": self._in_training(PLAIN) > self._in_training(UNATTACKED),
        }

    def print(self) -> None:
        """Print all tables."""
        self._print_networks()
        self._print_memory()
        self._print_times()

    def conclusion(self) -> str:
        """What the numbers say."""
        lines = [
            self._of_attacks(),
            self._of_selectivity(),
            *(self._of_robustness(kind) for kind in REGULARIZED),
            self._verdict(),
            self._of_memory(),
            self._of_time(),
        ]
        missed = [claim.replace("_", " ") for claim, holds in self.shown().items() if not holds]
        if missed:
            lines.append(f"Not shown: {', '.join(missed)}.")
        return "\n".join(lines)

    def as_data(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            **self.shown(),
            "conclusion": self.conclusion().splitlines(),
            "steps_of_pgd": self.steps_of_pgd,
            "test_images": self.test_images,
            "networks": [
                {**asdict(kind), "seed": seed, **asdict(result)}
                for kind, results in self.results.items()
                for seed, result in zip(self.recipe.seeds, results, strict=True)
            ],
            "memory": {
                "steps": self.steps.count,
                "before": asdict(self.steps.before),
                "after": asdict(self.steps.after),
            },
            "step_milliseconds": {
                name: milliseconds(self.steps.times.time(name)) for name in (ATTACK, REST, STEP)
            },
        }

    def _print_networks(self) -> None:
        def row(name: str, value: Callable[[Evaluation], float], form: str = ".1%") -> list[str]:
            return [name, *(_spread(map(value, r), form) for r in self.results.values())]

        rows = [
            row("accuracy, clean", lambda r: r.clean),
            *(row(f"PGD, eps = {eps:g}", _under("pgd", eps)) for eps in EPS),
            *(row(f"FGSM, eps = {eps:g}", _under("fgsm", eps)) for eps in EPS),
            row("SI, mean over layers", lambda r: r.selectivity, ".3f"),
            row("dead units", lambda r: r.dead_units, ".0f"),
        ]
        many = "mean [lowest, highest] of " if self.recipe.networks > 1 else ""
        print_table(
            f"Digits, {many}{_count(self.recipe.networks, 'network')} of each kind: SI is the "
            "class selectivity index over the whole test set",
            ["", *map(title, self.results)],
            rows,
        )

    def _print_memory(self) -> None:
        memories = (self.steps.before, self.steps.after)
        rows = [
            ["resident, MiB", *(_mib_text(memory.resident_mib) for memory in memories)],
            ["tensors", *(f"{memory.tensors}" for memory in memories)],
        ]
        if self.steps.before.gpu_mib is not None:
            rows.append(["on the GPU, MiB", *(_mib_text(memory.gpu_mib) for memory in memories)])
        print_table(
            f"Memory, training at alpha = {alpha_text(ALPHA)}",
            ["", f"before {self.steps.count} steps", "after"],
            rows,
        )

    def _print_times(self) -> None:
        times = self.steps.times
        rows = [
            [
                name,
                milliseconds_text(milliseconds(times.time(name))),
                f"{times.percent(name, STEP).median:.0f}%",
            ]
            for name in (ATTACK, REST, STEP)
        ]
        print_table(
            f"Time of a training step, steps of PGD: {self.recipe.attack_steps}",
            ["", "ms", "of the step"],
            rows,
        )

    def _falls(self, kind: Kind) -> bool:
        """Whether no larger eps gives a higher mean accuracy, and the largest a lower one."""
        curve = [mean(result.clean for result in self.results[kind])]
        curve += [mean(result.pgd[eps] for result in self.results[kind]) for eps in EPS]
        return all(left >= right for left, right in pairwise(curve)) and curve[-1] < curve[0]

    def _beyond(self) -> float:
        # Of numpy's, because a NaN has to stay one.
        return float(np.max([result.beyond for r in self.results.values() for result in r]))

    def _in_training(self, kind: Kind) -> float:
        """Mean accuracy under PGD with the radius of the training."""
        return mean(result.pgd[self.recipe.eps] for result in self.results[kind])

    def _of_attacks(self) -> str:
        verdict = "falls" if self.shown()["accuracy_falls_with_eps"] else "does not always fall"
        return (
            f"Accuracy under PGD of {self.steps_of_pgd} steps {verdict} with eps. At eps = "
            f"{self.recipe.eps:g}, that of the training, it is {self._in_training(PLAIN):.1%} at "
            f"alpha = 0, and {self._in_training(UNATTACKED):.1%} with no attack in training. The "
            f"farthest adversarial pixel is {self._beyond():.1e} beyond the ball or the bounds."
        )

    def _of_selectivity(self) -> str:
        indices = ", ".join(
            f"{mean(result.selectivity for result in results):.3f} at {title(kind)}"
            for kind, results in self.results.items()
            if kind.is_attacked
        )
        return f"Selectivity index: {indices}."

    def _robustness_gained(self, kind: Kind) -> list[float]:
        """Percentage points under PGD, averaged over eps, beyond alpha = 0 with the same seed."""
        pairs = zip(self.results[kind], self.results[PLAIN], strict=True)
        return [100 * (result.robustness - plain.robustness) for result, plain in pairs]

    def _of_robustness(self, kind: Kind) -> str:
        gained = self._robustness_gained(kind)
        points = f"{gained[0]:+.1f}"
        if len(gained) > 1:
            points = f"{mean(gained):+.1f} [{min(gained):+.1f}, {max(gained):+.1f}]"
        return (
            f"{title(kind)} against 0, accuracy under PGD averaged over eps: {points} percentage "
            f"points in {_count(len(gained), 'pair')} of networks with the same seed."
        )

    def _verdict(self) -> str:
        if self.recipe.networks == 1:
            return (
                "One network of each kind does not tell whether robustness goes with selectivity."
            )
        products = [product for kind in REGULARIZED for product in self._products(kind)]
        ways = {1: "rises with selectivity in each pair", -1: "falls with selectivity in each pair"}
        verdict = ways.get(_sign(products), "does not go one way with selectivity")
        return (
            f"On these digits, after adversarial training, robustness {verdict} "
            f"({_count(self.recipe.networks, 'network')} of each kind, {self.test_images} images)."
        )

    def _products(self, kind: Kind) -> list[float]:
        """Positive where the network with higher selectivity is more robust, pair by pair."""
        gained = self._robustness_gained(kind)
        pairs = zip(self.results[kind], self.results[PLAIN], gained, strict=True)
        return [(result.selectivity - plain.selectivity) * gain for result, plain, gain in pairs]

    def _of_memory(self) -> str:
        steps = self.steps
        verdict = "is flat" if steps.memory_is_flat() else "is not flat"
        on_gpu = ""
        if steps.after.gpu_mib is not None:
            on_gpu = f", {steps.growth_on_gpu_in_mib:+.1f} MiB on the GPU"
        return (
            f"Memory {verdict} over {steps.count} steps: {steps.growth_in_mib:+.1f} MiB resident, "
            f"{steps.after.tensors - steps.before.tensors:+d} tensors{on_gpu}."
        )

    def _of_time(self) -> str:
        median = {
            name: milliseconds(self.steps.times.time(name))["median"] for name in (ATTACK, STEP)
        }
        return (
            f"Of a training step of {median[STEP]:.1f} ms the attack, PGD of "
            f"{self.recipe.attack_steps} steps, takes {median[ATTACK]:.1f} ms."
        )


def _under(attack: str, eps: float) -> Callable[[Evaluation], float]:
    return lambda result: getattr(result, attack)[eps]


def _sign(values: Sequence[float]) -> int:
    """1 or -1 where all values have that sign, otherwise 0."""
    if all(value > 0 for value in values):
        return 1
    return -1 if all(value < 0 for value in values) else 0


def _spread(values: Iterable[float], form: str) -> str:
    """The mean of values with the lowest and the highest, or the only one."""
    known = list(values)
    if len(known) == 1:
        return f"{known[0]:{form}}"
    lowest, highest = min(known), max(known)
    return f"{mean(known):{form}} [{lowest:{form}}, {highest:{form}}]"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _mib_text(mib: float | None) -> str:
    return "unknown" if mib is None else f"{mib:.1f}"
