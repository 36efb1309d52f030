"""Check and time every contender of a work; results are plain data."""

from __future__ import annotations

import datetime
import os
import shutil
from collections.abc import Callable, Iterable
from typing import Any

from . import machine
from .compare import Comparison, Quartiles, interleave
from .work import Agreement, Target, Work
from .works import WORKS

__all__ = ["check", "measure", "measure_all"]

Say = Callable[[str], object]


def measure_all(
    names: Iterable[str] | None = None, *, quick: bool = False, say: Say = lambda line: None
) -> dict[str, Any]:
    """Measure works one after another.

    Parameters
    ----------
    names : iterable of str, optional
        Names of the works, of all by default.
    quick : bool, default False
        Take fewer rounds, and leave ``torch.compile`` out.
    say : callable, optional
        Called with a line about each step.
    """
    chosen = list(WORKS if names is None else names)
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        **machine.describe(),
        "quick": quick,
        "caches": "warm: as the contender before has left them",
        "works": [measure(WORKS[name], quick=quick, say=say) for name in chosen],
    }


def measure(
    work_class: type[Work], *, quick: bool = False, say: Say = lambda line: None
) -> dict[str, Any]:
    """Check every contender of one work, then time them in turn."""
    work = work_class()
    say(f"{work.name}: checking against float64")
    agreements, left_out = _check_all(work, quick)
    rounds = work.quick_rounds if quick else work.rounds
    say(f"{work.name}: timing {len(agreements)} contenders in {rounds} rounds")
    comparison = interleave({label: work.repetition(label) for label in agreements}, rounds=rounds)
    rows = [_row(work, label, agreements[label], comparison) for label in agreements]
    targets = [_target(target, comparison) for target in work.targets]
    return {
        "name": work.name,
        "title": work.title,
        "bytes": work.moved_bytes(),
        "rows": rows,
        "targets": targets,
        "left_out": left_out,
    }


def check(work: Work, label: str) -> Agreement | str:
    """Compare a contender with float64, or say why it cannot run here.

    Only ``torch.compile`` may be missing something.
    """
    if not work.contenders[label].compiled:
        return work.check(label)
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        return f"no C++ compiler ({compiler})"
    try:
        return work.check(label)
    # What inductor raises where the headers of Python or OpenMP are missing.
    except RuntimeError as error:
        return f"torch.compile: {type(error).__name__}"


def _check_all(work: Work, quick: bool) -> tuple[dict[str, Agreement], dict[str, str]]:
    agreements: dict[str, Agreement] = {}
    left_out: dict[str, str] = {}
    for label, entry in work.contenders.items():
        result = "quick run" if quick and entry.compiled else check(work, label)
        if isinstance(result, Agreement):
            agreements[label] = result
        else:
            left_out[label] = result
    return agreements, left_out


def _row(work: Work, label: str, agreement: Agreement, comparison: Comparison) -> dict[str, Any]:
    entry = work.contenders[label]
    time = comparison.time(label)
    plain = work.plain_of(label)
    moved = work.moved_bytes()
    losses = work.losses(label)
    if agreement.loss is not None:
        losses["checked"] = agreement.loss
    return {
        "contender": label,
        "role": entry.role,
        "compiled": entry.compiled,
        "device": "cpu",
        "dtype": "float32",
        "rounds": comparison.rounds,
        "milliseconds": _scaled(time, 1e3),
        "added_to": plain,
        "added_milliseconds": _scaled(comparison.added(label, plain), 1e3) if plain else None,
        "gigabytes_per_second": moved / time.median * 1e-9 if moved else None,
        "losses": losses,
        "value_error": agreement.value_error,
        "gradient_error": agreement.gradient_error,
    }


def _target(target: Target, comparison: Comparison) -> dict[str, Any]:
    measured = target.measure(comparison)
    return {
        "quantity": target.quantity,
        "measured": measured.as_dict(),
        "unit": target.unit,
        "bound": target.bound,
        "at_least": target.at_least,
        "reached": target.reached(measured),
    }


def _scaled(quartiles: Quartiles, factor: float) -> dict[str, float]:
    return {name: value * factor for name, value in quartiles.as_dict().items()}
