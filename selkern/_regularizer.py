"""What the regularizers have in common: they are attached to a model until they are closed."""

from __future__ import annotations

import math
from types import TracebackType
from typing import Any, NoReturn, TypeVar

from torch import Tensor

from selkern import _checks
from selkern._capture import Capture

BACKENDS = ("selkern", "reference")

Self = TypeVar("Self", bound="Regularizer")


class Regularizer:
    """Holds the taps on a model's layers; a context manager."""

    _capture: Capture
    _backend: str

    @property
    def backend(self) -> str:
        """What it computes with, "selkern" or "reference"."""
        return self._backend

    def close(self) -> None:
        """Detach from the model and put every layer back as it was."""
        self._capture.close()

    def __enter__(self: Self) -> Self:
        """Return the regularizer itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Detach from the model."""
        self.close()

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        """Refuse to be copied or pickled: a copy would be attached to nothing."""
        kind = type(self).__name__
        raise TypeError(
            f"a {kind} cannot be copied or pickled, because it is attached to its model: copy the "
            f"model alone, and attach a new {kind} to the copy"
        )


def check_strength(name: str, value: Any) -> None:
    """Refuse anything but a finite real number or scalar tensor."""
    is_scalar = isinstance(value, Tensor) and value.dim() == 0
    if not math.isfinite(value if is_scalar else _checks.real(name, value)):
        raise ValueError(f"{name} must be finite, got {value}")
