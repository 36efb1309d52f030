from __future__ import annotations

from typing import Any

from .work import Contender
from .works import SPECTRUM
from .works.spectrum import LargeEigenspectrum

__all__ = ["WORKS", "bench_spectrum"]

# The large ones take seconds a round: once, in the other suite, is enough.
WORKS = tuple(work for work in SPECTRUM if not issubclass(work, LargeEigenspectrum))


def bench_spectrum(measure: Any, contender: Contender) -> None:
    """Every contender of every work of WORKS; the fixture checks and times it."""
