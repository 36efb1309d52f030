"""One network in a few numbers, and numbers over seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from selkern.study.folder import Row
from selkern.study.spectrum.study import CLEAN, FGSM_NAME, NOISE, PGD_NAME
from selkern.study.statistics import Interval, interval

__all__ = [
    "MARGIN",
    "Network",
    "Value",
    "area",
    "differences",
    "kinds",
    "over_seeds",
    "stronger_fgsm",
    "summarise",
]

MARGIN = 0.01
"""In accuracy."""

Kind = tuple[str, str]
"""Architecture and regularizer."""

Curve = Mapping[float, float]
"""Accuracy by strength, from 0 on."""


@dataclass(frozen=True)
class Network:
    """What was measured on one network."""

    architecture: str
    regularizer: str
    seed: int
    clean: float
    curves: Mapping[str, Curve]
    """By perturbation; each begins with the clean accuracy at strength 0."""
    layers: Mapping[str, Mapping[str, Any]]
    """Spectrum and exponents by hidden layer."""

    @property
    def kind(self) -> Kind:
        """Architecture and regularizer."""
        return self.architecture, self.regularizer

    @property
    def fgsm(self) -> float:
        """Mean accuracy over the radii of FGSM."""
        return area(self.curves[FGSM_NAME])

    @property
    def pgd(self) -> float:
        """Mean accuracy over the radii of PGD."""
        return area(self.curves[PGD_NAME])

    @property
    def noise(self) -> float:
        """Mean accuracy over the deviations of gaussian noise."""
        return area(self.curves[NOISE])


Value = Callable[[Network], float]


def area(curve: Curve) -> float:
    r"""Area under a curve by trapezoids, over its width: the mean accuracy over all strengths.

    .. math:: \frac{1}{s_k - s_0} \sum_{i=1}^{k} (s_i - s_{i-1}) \frac{a_i + a_{i-1}}{2}
    """
    strengths = np.array(sorted(curve))
    heights = np.array([curve[strength] for strength in strengths])
    trapezoids = np.diff(strengths) * (heights[1:] + heights[:-1]) / 2
    return float(trapezoids.sum() / (strengths[-1] - strengths[0]))


def summarise(rows: Iterable[Row]) -> list[Network]:
    """Summarise the measurements of each network."""
    by_network: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        key = (row["architecture"], row["regularizer"], row["seed"])
        by_network.setdefault(key, []).append(row)
    return [_summary(*key, of_network) for key, of_network in by_network.items()]


def _summary(architecture: str, regularizer: str, seed: int, rows: Sequence[Row]) -> Network:
    [clean] = [row for row in rows if row["perturbation"] == CLEAN]
    curves = {name: {0.0: clean["accuracy"]} for name in (FGSM_NAME, PGD_NAME, NOISE)}
    for row in rows:
        if row["perturbation"] in curves:
            curves[row["perturbation"]][row["strength"]] = row["accuracy"]
    return Network(architecture, regularizer, seed, clean["accuracy"], curves, clean["layers"])


def kinds(networks: Iterable[Network], architecture: str | None = None) -> list[Kind]:
    """Every kind of network, or those of one architecture, in the order in which they come."""
    found = dict.fromkeys(network.kind for network in networks)
    return [kind for kind in found if architecture in (None, kind[0])]


def over_seeds(networks: Iterable[Network], kind: Kind, value: Value) -> Interval:
    """Mean of a value over the networks of one kind."""
    return interval([value(network) for network in networks if network.kind == kind])


def differences(
    networks: Iterable[Network], architecture: str, of: str, base: str, value: Value
) -> Interval:
    """Mean over seeds of a value with one regularizer minus that with another of the same seed."""
    by_seed: dict[int, dict[str, float]] = {}
    for network in networks:
        if network.architecture == architecture and network.regularizer in (of, base):
            by_seed.setdefault(network.seed, {})[network.regularizer] = value(network)
    pairs = (values for values in by_seed.values() if {of, base} <= values.keys())
    return interval([values[of] - values[base] for values in pairs])


def stronger_fgsm(networks: Iterable[Network]) -> tuple[int, int, float]:
    """Networks that FGSM hurts more than PGD at some radius, of how many, and by how much at most.

    A difference up to ``MARGIN`` is a few images that another random start may get right.

    PGD of many steps that does not find what a single step finds tells of gradients that mislead.
    """
    excesses = [
        max(network.curves[PGD_NAME][eps] - right for eps, right in fgsm.items())
        for network in networks
        for fgsm in [network.curves[FGSM_NAME]]
    ]
    return sum(excess > MARGIN for excess in excesses), len(excesses), max(excesses, default=0.0)
