"""Time contenders in turn, so that a slow minute of the machine hits all alike."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from time import perf_counter_ns

import numpy as np
from numpy.typing import NDArray

__all__ = ["Comparison", "Quartiles", "cpu_nanoseconds", "interleave"]


@dataclass(frozen=True)
class Quartiles:
    median: float
    lower: float
    upper: float

    @classmethod
    def of(cls, samples: NDArray[np.float64]) -> Quartiles:
        lower, median, upper = np.percentile(samples, [25, 50, 75])
        return cls(float(median), float(lower), float(upper))

    def as_dict(self) -> dict[str, float]:
        return {"median": self.median, "lower": self.lower, "upper": self.upper}


class Comparison:
    """Seconds of every contender in every round.

    Differences and ratios are taken round by round, before the median.
    """

    def __init__(self, seconds: Mapping[str, NDArray[np.float64]]) -> None:
        self.seconds = dict(seconds)

    def __contains__(self, label: str) -> bool:
        return label in self.seconds

    @property
    def rounds(self) -> int:
        return len(next(iter(self.seconds.values())))

    def time(self, label: str) -> Quartiles:
        return Quartiles.of(self.seconds[label])

    def milliseconds(self, label: str) -> Quartiles:
        return Quartiles.of(1e3 * self.seconds[label])

    def ratio(self, numerator: str, denominator: str) -> Quartiles:
        return Quartiles.of(self.seconds[numerator] / self.seconds[denominator])

    def percent(self, numerator: str, denominator: str) -> Quartiles:
        return Quartiles.of(100 * self.seconds[numerator] / self.seconds[denominator])

    def added(self, label: str, plain: str) -> Quartiles:
        """What a contender takes beyond another."""
        return Quartiles.of(self._added(label, plain))

    def added_percent(self, label: str, plain: str) -> Quartiles:
        """What a contender takes beyond another, in percent of that other."""
        return Quartiles.of(100 * self._added(label, plain) / self.seconds[plain])

    def added_share(self, label: str, other: str, plain: str) -> Quartiles:
        """What a contender takes beyond a third, in percent of what another does."""
        return Quartiles.of(100 * self._added(label, plain) / self._added(other, plain))

    def fastest(self, labels: Iterable[str]) -> str:
        """The contender with the smallest median, of those that took part."""
        present = [label for label in labels if label in self]
        return min(present, key=lambda label: self.time(label).median)

    def _added(self, label: str, plain: str) -> NDArray[np.float64]:
        return self.seconds[label] - self.seconds[plain]


def interleave(
    repetitions: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warmup: int = 2,
    after_round: Callable[[], object] = lambda: None,
    nanoseconds_of: Callable[[Callable[[], object]], int] | None = None,
    calls: int = 1,
) -> Comparison:
    """Time one repetition of every contender in every round.

    Each round starts with another contender and every second one runs
    backwards, so none always follows the same one. Caches are warm: as the
    contender before has left them.

    Parameters
    ----------
    repetitions : mapping of str to callable
        The contenders.
    rounds : int
        Number of timed rounds.
    warmup : int, default 2
        Rounds before the first timed one.
    after_round : callable, optional
        Called after every timed round, for a progress bar.
    nanoseconds_of : callable, optional
        Times one repetition; by the clock of the host if not given.
    calls : int, default 1
        How often a repetition does the work; times are of one call.
    """
    nanoseconds_of = nanoseconds_of or cpu_nanoseconds
    labels = list(repetitions)
    nanoseconds: dict[str, list[int]] = {label: [] for label in labels}
    for _ in range(warmup):
        for label in labels:
            repetitions[label]()
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for index in range(rounds):
            for label in _order(labels, index):
                nanoseconds[label].append(nanoseconds_of(repetitions[label]))
            after_round()
    finally:
        if collecting:
            gc.enable()
    seconds = {label: np.array(times) * 1e-9 / calls for label, times in nanoseconds.items()}
    return Comparison(seconds)


def _order(labels: list[str], index: int) -> list[str]:
    start = (index // 2) % len(labels)
    rotated = labels[start:] + labels[:start]
    return rotated[::-1] if index % 2 else rotated


def cpu_nanoseconds(repetition: Callable[[], object]) -> int:
    """How long a repetition takes by the clock of the host."""
    start = perf_counter_ns()
    # The result is dropped before the clock stops: freeing it is part of the work.
    repetition()
    return perf_counter_ns() - start
