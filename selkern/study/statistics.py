"""Means over seeds with their intervals, and correlations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = [
    "CONFIDENCE",
    "LEAST_VALUES",
    "Interval",
    "correlation",
    "interval",
    "remark_on_intervals",
    "slope",
]

CONFIDENCE = 0.95
RESAMPLES = 9999
LEAST_VALUES = 5
"""With fewer, an interval over seeds would say nothing."""
ROUNDING = 1e-12
COVERAGE = {5: 0.83, 6: 0.87, 8: 0.88, 20: 0.92}
"""How often the interval of so many normal values held their mean, in simulations."""


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and its bootstrap interval, None where there are too few seeds."""

    mean: float
    low: float | None
    high: float | None
    count: int

    def text(self, form: str) -> str:
        """The mean with its interval, each value in a form."""
        if self.count == 0:
            return "-"
        if self.low is None or self.high is None:
            return format(self.mean, form)
        return f"{self.mean:{form}} [{self.low:{form}}, {self.high:{form}}]"


def interval(values: Sequence[float]) -> Interval:
    """Mean of values and its BCa bootstrap interval (Efron 1987).

    Values that are all the same, but for rounding, have their mean as both ends. Those that are
    not finite are left out; ``count`` says how many were not.
    """
    from scipy.stats import bootstrap

    finite = np.array([value for value in values if math.isfinite(value)])
    if len(finite) == 0:
        return Interval(math.nan, None, None, 0)
    mean = float(finite.mean())
    if len(finite) < LEAST_VALUES:
        return Interval(mean, None, None, len(finite))
    if np.ptp(finite) <= ROUNDING * np.abs(finite).max():
        return Interval(mean, mean, mean, len(finite))
    ends = bootstrap(
        (finite,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval
    if not (math.isfinite(ends.low) and math.isfinite(ends.high)):
        return Interval(mean, None, None, len(finite))
    return Interval(mean, float(ends.low), float(ends.high), len(finite))


def remark_on_intervals(seeds: int) -> str:
    """What a reader must know of intervals over so many seeds, and of many of them."""
    simulated = [count for count in COVERAGE if count <= seeds]
    if not simulated:
        return (
            f"An interval needs {LEAST_VALUES} seeds: with fewer, nothing can be told. Run again "
            f"with --seeds {LEAST_VALUES}, and what is there is kept."
        )
    share = COVERAGE[max(simulated)]
    return (
        f"Bootstrap intervals over few seeds are too narrow: in simulations with {max(simulated)} "
        f"normal values, those called {CONFIDENCE:.0%} held the mean in {share:.0%} of cases, and "
        "in fewer with skewed ones. Findings are measured on the same networks and go together, "
        "and no correction is made for their number."
    )


def correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's rank correlation; NaN where a side does not vary."""
    from scipy.stats import rankdata

    ranks = [rankdata(values) for values in (x, y)]
    if any(len(side) < 2 or np.ptp(side) == 0 for side in ranks):
        return math.nan
    return float(np.corrcoef(*ranks)[0, 1])


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Slope of the least-squares line of y over x; NaN where x does not vary."""
    if len(x) < 2 or np.ptp(x) == 0:
        return math.nan
    return float(np.polyfit(x, y, 1)[0])
