from __future__ import annotations

from typing import Any

from .work import Contender
from .works import POOLING as WORKS

__all__ = ["WORKS", "bench_pooling"]


def bench_pooling(measure: Any, contender: Contender) -> None:
    """Every contender of every work of WORKS; the fixture checks and times it."""
