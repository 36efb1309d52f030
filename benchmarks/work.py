"""What a benchmark is: inputs, and contenders that do the same work with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from .compare import Comparison, Quartiles
from .graphs import Outcome, captured

__all__ = [
    "COPY",
    "IN_A_GRAPH",
    "Agreement",
    "Contender",
    "Disagreement",
    "Missing",
    "Outcome",
    "Target",
    "Work",
    "contender",
]


class Disagreement(Exception):
    """A contender's value or gradient is not that of the float64 reference."""


class Missing(RuntimeError):
    """What a contender needs is not installed, and it is left out."""


@dataclass(frozen=True)
class Agreement:
    """How far a contender is from the float64 reference.

    Errors are the largest absolute difference over the largest absolute value,
    of the value and of each gradient.
    """

    loss: float | None
    value_error: float | None
    gradient_error: float | None


@dataclass(frozen=True)
class Target:
    """A quantity of the comparison, and the bound it is meant to reach."""

    quantity: str
    measure: Callable[[Comparison], Quartiles]
    bound: float
    at_least: bool = True
    unit: str = "x"

    def reached(self, measured: Quartiles) -> bool:
        if self.at_least:
            return measured.median >= self.bound
        return measured.median <= self.bound


Role = Literal["plain", "noise", "read", "floor", "copy", "rival", "selkern"]
"""What a contender is for: `plain` does the work without the regularizer and
`noise` is the same once more, `read` only reads the inputs, `floor` does only what
nobody can leave out, and `copy` copies as many bytes on the device as the work has to
move."""

COPY = "copy of as many bytes"
IN_A_GRAPH = ", in a graph"


@dataclass(frozen=True)
class Contender:
    """One way to do the work; a compiled one needs a C++ compiler at run time.

    One that `fits_graph` can be captured in a CUDA graph; the contender that replays
    that graph is `graphed`.
    """

    label: str
    role: Role
    compiled: bool
    method: str
    fits_graph: bool = False
    graphed: bool = False


def contender(
    label: str, role: Role = "rival", *, compiled: bool = False, fits_graph: bool = False
) -> Callable[[Callable[..., Outcome]], Callable[..., Outcome]]:
    """Make a method of a `Work` one of its contenders."""

    def mark(method: Callable[..., Outcome]) -> Callable[..., Outcome]:
        entry = Contender(label, role, compiled, method.__name__, fits_graph)
        method.contender = entry  # type: ignore[attr-defined]
        return method

    return mark


class Work:
    """A piece of work; its contenders are the methods marked by `contender`.

    Building an instance makes the inputs.

    Parameters
    ----------
    device : torch.device or str
        Where the inputs lie. On a GPU each contender that fits a CUDA graph takes part
        a second time, captured in one.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    dtype: ClassVar[torch.dtype] = torch.float32
    caches: ClassVar[str] = "warm: as the contender before has left them"
    rounds: ClassVar[int] = 30
    quick_rounds: ClassVar[int] = 10
    targets: ClassVar[tuple[Target, ...]] = ()
    value_tolerance: ClassVar[float] = 1e-5
    gradient_tolerance: ClassVar[float] = 1e-5

    omitted: ClassVar[frozenset[str]] = frozenset()
    """Labels of inherited contenders that take no part."""

    contenders: ClassVar[dict[str, Contender]] = {}
    """Every contender by its label, in the order in which they are defined."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        members = [member for base in reversed(cls.__mro__) for member in vars(base).values()]
        marked = [getattr(member, "contender", None) for member in members]
        cls.contenders = {
            entry.label: entry
            for entry in marked
            if isinstance(entry, Contender) and entry.label not in cls.omitted
        }

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.has_graphs = self.device.type == "cuda"
        self._replays: dict[str, Callable[[], Outcome]] = {}

    @cached_property
    def entries(self) -> dict[str, Contender]:
        """The contenders that take part on this device, by their labels."""
        entries = dict(self.contenders)
        for label, entry in self.contenders.items():
            if self.has_graphs and entry.fits_graph:
                graphed = replace(entry, label=label + IN_A_GRAPH, graphed=True)
                entries[graphed.label] = graphed
        return entries

    @property
    def calls(self) -> int:
        """How often a repetition does the work; times are of one call."""
        return 1

    def plain_of(self, label: str) -> str | None:
        """The plain contender to compare with, if there is one and it is another."""
        return self._counterpart("plain", label)

    def copy_of(self, label: str) -> str | None:
        """The copy to compare with, if there is one and it is another."""
        return self._counterpart("copy", label)

    def _counterpart(self, role: Role, label: str) -> str | None:
        """The first of a role, captured in a graph if `label` is."""
        entry = self.entries[label]
        same = [other for other in self.entries.values() if other.role == role]
        found = next((other for other in same if other.graphed == entry.graphed), None)
        return None if found is None or found.label == label else found.label

    def repetition(self, label: str) -> Callable[[], Outcome]:
        """The callable that does one timed repetition."""
        entry = self.entries[label]
        method: Callable[[], Outcome] = getattr(self, entry.method)
        if not entry.graphed:
            return method
        if label not in self._replays:
            self._replays[label] = captured(method, self.device)
        return self._replays[label]

    def moved_bytes(self) -> int | None:
        """Bytes that have to move between memory and the processor, at the least.

        None where that depends on how torch does the rest of the work.
        """
        return None

    def check_outcome(self, label: str) -> Outcome:
        """Value and gradients of a contender, for the check."""
        if self.entries[label].graphed:
            return self.repetition(label)()
        return self.outcome(label)

    def outcome(self, label: str) -> Outcome:
        """Value and gradients of a contender that is not captured."""
        return self.repetition(label)()

    def value_tolerance_of(self, label: str) -> float:
        """How far a contender's value may be from float64."""
        return self.value_tolerance

    def gradient_tolerance_of(self, label: str) -> float:
        """How far a contender's gradients may be from float64."""
        return self.gradient_tolerance

    def expected(self, label: str) -> Outcome:
        """Value and gradients of a contender in float64."""
        raise NotImplementedError

    def losses(self, label: str) -> dict[str, float]:
        """Losses seen in the timed repetitions."""
        return {}

    def check(self, label: str) -> Agreement:
        """Compare a contender with the float64 reference.

        Raises
        ------
        Disagreement
            If the value or a gradient is off by more than the tolerance.
        """
        entry = self.entries[label]
        actual = self.check_outcome(label)
        expected = self.expected(label.removesuffix(IN_A_GRAPH) if entry.graphed else label)
        loss = None
        value_error = _largest_error(actual.outputs, expected.outputs)
        if actual.value is not None and expected.value is not None:
            of_value = _relative_error(actual.value, expected.value)
            value_error = (
                of_value if value_error is None else float(np.maximum(of_value, value_error))
            )
            loss = float(actual.value.detach()) if actual.value.ndim == 0 else None
        gradients = list(actual.gradients)
        # A graph that was captured without its backward has none.
        has_gradients = bool(gradients) or not entry.graphed
        gradient_error = _largest_error(gradients, expected.gradients) if has_gradients else None
        self._refuse(label, "value", value_error, self.value_tolerance_of(label))
        self._refuse(label, "gradient", gradient_error, self.gradient_tolerance_of(label))
        return Agreement(loss, value_error, gradient_error)

    def _refuse(self, label: str, what: str, error: float | None, tolerance: float) -> None:
        # Written so that a NaN is refused too.
        if error is not None and not error <= tolerance:
            raise Disagreement(
                f"{self.name}: the {what} of {label!r} differs from float64 by "
                f"{error:.1e}, expected at most {tolerance:.0e}"
            )


def _largest_error(actual: Iterable[Tensor], expected: Iterable[Tensor]) -> float | None:
    errors = [_relative_error(*pair) for pair in zip(actual, expected, strict=True)]
    # Not max(), which may drop a NaN.
    return float(np.max(errors)) if errors else None


def _relative_error(actual: Tensor, expected: Tensor) -> float:
    if actual.shape != expected.shape:
        raise Disagreement(f"expected shape {tuple(expected.shape)}, got {tuple(actual.shape)}")
    largest = expected.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
    difference = (actual.detach().double() - expected).abs().max()
    return float(difference / largest)
