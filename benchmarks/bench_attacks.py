from __future__ import annotations

from typing import Any

from .work import Contender
from .works import ATTACKS as WORKS

__all__ = ["WORKS", "bench_attacks"]


def bench_attacks(measure: Any, contender: Contender) -> None:
    """Every contender of every work of WORKS; the fixture checks and times it."""
