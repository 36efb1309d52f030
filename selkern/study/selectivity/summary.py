"""One network in a few numbers, and numbers over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from selkern.study.folder import Row
from selkern.study.measures import FRACTIONS
from selkern.study.selectivity.study import CLEAN, FGSM_NAME, PGD_NAME, SWEPT_NAME, TRAINING
from selkern.study.statistics import Interval, correlation, interval, slope

__all__ = [
    "Network",
    "Value",
    "alpha_text",
    "correlations",
    "differences",
    "mean_by_seed",
    "over_seeds",
    "slope_differences",
    "summarise",
]

_NO_CORRUPTION = (TRAINING, CLEAN, FGSM_NAME, PGD_NAME, SWEPT_NAME)
_ATTACKS = (FGSM_NAME, PGD_NAME)


@dataclass(frozen=True)
class Network:
    """What was measured on one network.

    Accuracies under corruptions are plain means over corruptions and severities, those under an
    attack over its radii; dimensionalities over these and over the layers, one value for each of
    ``FRACTIONS``.
    """

    alpha: float
    seed: int
    selectivity: float
    clean: float
    corrupted: float
    fgsm: float
    pgd: float
    corruption_dimensionality: tuple[float, ...]
    attack_dimensionality: tuple[float, ...]


Value = Callable[[Network], float]


def summarise(rows: Iterable[Row]) -> list[Network]:
    """Summarise the measurements of each network, in the order of strengths and seeds."""
    by_network: dict[tuple[float, int], list[Row]] = {}
    for row in rows:
        by_network.setdefault((row["alpha"], row["seed"]), []).append(row)
    return [_summary(*key, by_network[key]) for key in sorted(by_network)]


def _summary(alpha: float, seed: int, rows: Sequence[Row]) -> Network:
    [clean] = [row for row in rows if row["perturbation"] == CLEAN]
    corruptions = [row for row in rows if row["perturbation"] not in _NO_CORRUPTION]
    attacks = [row for row in rows if row["perturbation"] in _ATTACKS]
    return Network(
        alpha,
        seed,
        selectivity=_mean(clean["selectivity"].values()),
        clean=clean["accuracy"],
        corrupted=_mean(row["accuracy"] for row in corruptions),
        fgsm=_mean(row["accuracy"] for row in attacks if row["perturbation"] == FGSM_NAME),
        pgd=_mean(row["accuracy"] for row in attacks if row["perturbation"] == PGD_NAME),
        corruption_dimensionality=_dimensionality(corruptions),
        attack_dimensionality=_dimensionality(attacks),
    )


def _dimensionality(rows: Sequence[Row]) -> tuple[float, ...]:
    layers = [layer for row in rows for layer in row.get("dimensionality", {}).values()]
    return tuple(_mean(layer[index] for layer in layers) for index in range(len(FRACTIONS)))


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values) if values else math.nan


def alpha_text(alpha: float) -> str:
    """A strength with its sign, which 0 has not."""
    return f"{alpha:+g}" if alpha else "0"


def mean_by_seed(rows: Iterable[Row], value: Callable[[Row], float]) -> Interval:
    """Mean over seeds of a value's mean over the measurements of a seed."""
    by_seed: dict[int, list[float]] = {}
    for row in rows:
        by_seed.setdefault(row["seed"], []).append(value(row))
    return interval([_mean(values) for values in by_seed.values()])


def over_seeds(networks: Iterable[Network], alpha: float, value: Value) -> Interval:
    """Mean of a value over the networks of one strength."""
    return interval([value(network) for network in networks if network.alpha == alpha])


def differences(networks: Sequence[Network], alpha: float, base: float, value: Value) -> Interval:
    """Mean over seeds of a value at one strength minus that at another of the same seed."""
    pairs = ({n.alpha: value(n) for n in of_seed} for of_seed in _by_seed(networks))
    return interval([pair[alpha] - pair[base] for pair in pairs if {alpha, base} <= pair.keys()])


def correlations(networks: Sequence[Network], x: Value, y: Value) -> Interval:
    """Mean over seeds of the rank correlation over the strengths of a seed."""
    return interval(
        [correlation([x(n) for n in nets], [y(n) for n in nets]) for nets in _by_seed(networks)]
    )


def slope_differences(networks: Sequence[Network], x: Value, y: Value, base: Value) -> Interval:
    """Mean over seeds of the slope of ``y`` over ``x`` minus that of ``base`` over ``x``."""
    return interval(
        [
            slope([x(n) for n in nets], [y(n) for n in nets])
            - slope([x(n) for n in nets], [base(n) for n in nets])
            for nets in _by_seed(networks)
        ]
    )


def _by_seed(networks: Sequence[Network]) -> list[list[Network]]:
    seeds = sorted({network.seed for network in networks})
    return [[network for network in networks if network.seed == seed] for seed in seeds]
