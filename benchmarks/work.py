"""What a benchmark is: inputs, and contenders that do the same work with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from .compare import Comparison, Quartiles

__all__ = ["Agreement", "Contender", "Disagreement", "Outcome", "Target", "Work", "contender"]


class Disagreement(Exception):
    """A contender's value or gradient is not that of the float64 reference."""


@dataclass(frozen=True)
class Outcome:
    """What one repetition computes: a value and gradients, either may be missing."""

    value: Tensor | None = None
    gradients: Iterable[Tensor] = ()


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


Role = Literal["plain", "noise", "read", "rival", "selkern"]
"""What a contender is for: `plain` does the work without the regularizer and
`noise` is the same once more, `read` only reads the inputs."""


@dataclass(frozen=True)
class Contender:
    """One way to do the work; a compiled one needs a C++ compiler at run time."""

    label: str
    role: Role
    compiled: bool
    method: str


def contender(
    label: str, role: Role = "rival", *, compiled: bool = False
) -> Callable[[Callable[..., Outcome]], Callable[..., Outcome]]:
    """Make a method of a `Work` one of its contenders."""

    def mark(method: Callable[..., Outcome]) -> Callable[..., Outcome]:
        entry = Contender(label, role, compiled, method.__name__)
        method.contender = entry  # type: ignore[attr-defined]
        return method

    return mark


class Work:
    """A piece of work; its contenders are the methods marked by `contender`.

    Building an instance makes the inputs.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    rounds: ClassVar[int] = 30
    quick_rounds: ClassVar[int] = 10
    targets: ClassVar[tuple[Target, ...]] = ()
    value_tolerance: ClassVar[float] = 1e-5
    gradient_tolerance: ClassVar[float] = 1e-5

    contenders: ClassVar[dict[str, Contender]] = {}
    """Every contender by its label, in the order in which they are defined."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        marked = [getattr(method, "contender", None) for method in vars(cls).values()]
        own = {entry.label: entry for entry in marked if entry is not None}
        cls.contenders = {**cls.contenders, **own}

    @classmethod
    def plain_of(cls, label: str) -> str | None:
        """The eager plain contender, if there is one and it is another."""
        plain = (other.label for other in cls.contenders.values() if other.role == "plain")
        first = next(plain, None)
        return None if first == label else first

    def repetition(self, label: str) -> Callable[[], Outcome]:
        """The callable that does one timed repetition."""
        method: Callable[[], Outcome] = getattr(self, self.contenders[label].method)
        return method

    def moved_bytes(self) -> int | None:
        """Bytes that have to move between memory and the processor, at the least.

        None where that depends on how torch does the rest of the work.
        """
        return None

    def outcome(self, label: str) -> Outcome:
        """Value and gradients of a contender, for the check."""
        return self.repetition(label)()

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
        actual, expected = self.outcome(label), self.expected(label)
        loss = value_error = None
        if actual.value is not None and expected.value is not None:
            value_error = _relative_error(actual.value, expected.value)
            loss = float(actual.value.detach()) if actual.value.ndim == 0 else None
        pairs = zip(actual.gradients, expected.gradients, strict=True)
        gradient_error = max((_relative_error(*pair) for pair in pairs), default=None)
        self._refuse(label, "value", value_error, self.value_tolerance)
        self._refuse(label, "gradient", gradient_error, self.gradient_tolerance)
        return Agreement(loss, value_error, gradient_error)

    def _refuse(self, label: str, what: str, error: float | None, tolerance: float) -> None:
        # Written so that a NaN is refused too.
        if error is not None and not error <= tolerance:
            raise Disagreement(
                f"{self.name}: the {what} of {label!r} differs from float64 by "
                f"{error:.1e}, expected at most {tolerance:.0e}"
            )


def _relative_error(actual: Tensor, expected: Tensor) -> float:
    if actual.shape != expected.shape:
        raise Disagreement(f"expected shape {tuple(expected.shape)}, got {tuple(actual.shape)}")
    largest = expected.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
    difference = (actual.detach().double() - expected).abs().max()
    return float(difference / largest)
