"""Check and time every contender of a work; results are plain data."""

from __future__ import annotations

import contextlib
import datetime
import gc
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from time import monotonic
from typing import Any

import torch

from . import machine
from .ceilings import ceilings
from .clocks import nanoseconds_on
from .compare import Comparison, Quartiles, interleave
from .work import Agreement, Contender, Disagreement, Missing, Target, Work
from .works import CUDA_WORKS, WORKS

__all__ = ["check", "measure", "measure_all", "works_of"]

Say = Callable[[str], object]
Results = dict[str, Any]


def works_of(device: torch.device | str) -> Mapping[str, type[Work]]:
    """The works of a device, by their names."""
    return CUDA_WORKS if torch.device(device).type == "cuda" else WORKS


def measure_all(
    names: Iterable[str] | None = None,
    *,
    device: torch.device | str = "cpu",
    quick: bool = False,
    seconds: float = float("inf"),
    say: Say = lambda line: None,
    keep: Callable[[Results], object] = lambda results: None,
) -> Results:
    """Measure works one after another.

    Parameters
    ----------
    names : iterable of str, optional
        Names of the works, of all by default.
    device : torch.device or str
        Where to measure.
    quick : bool, default False
        Take fewer rounds, and leave ``torch.compile`` out.
    seconds : float, optional
        Start no work after as many.
    say : callable, optional
        Called with a line about each step.
    keep : callable, optional
        Called with the results so far after each work.
    """
    device = torch.device(device)
    works = works_of(device)
    chosen = list(works if names is None else names)
    end = monotonic() + seconds
    results: Results = {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        **machine.describe(device),
        "quick": quick,
        "caches": "each work says whether they are warm",
        "works": [],
        "skipped": {},
        "failures": {},
    }
    if device.type == "cuda":
        say("measuring a copy and a matrix product")
        results["ceilings"] = ceilings(device)
        results["clocks"] = {"at the start": machine.clocks(device)}
    for name in chosen:
        if monotonic() > end:
            results["skipped"][name] = "no time was left"
            continue
        _measure_into(results, works[name], device, quick, say)
        keep(results)
    if device.type == "cuda":
        with contextlib.suppress(RuntimeError):
            results["clocks"]["at the end"] = machine.clocks(device)
    keep(results)
    return results


def _measure_into(
    results: Results, work_class: type[Work], device: torch.device, quick: bool, say: Say
) -> None:
    # One kernel's fault on a lent GPU must not cost what the others show.
    caught = Exception if device.type == "cuda" else ()
    try:
        work = measure(work_class, device=device, quick=quick, say=say)
    except caught as error:
        results["failures"][work_class.name] = _in_short(error)
        say(f"{work_class.name}: {results['failures'][work_class.name]}")
    else:
        results["works"].append(work)
        failures = work["failures"].items()
        results["failures"].update({f"{work['name']}: {label}": why for label, why in failures})
    gc.collect()
    if device.type == "cuda":
        # A fault of the GPU stays, and what failed has been noted.
        with contextlib.suppress(RuntimeError):
            torch.cuda.empty_cache()


def measure(
    work_class: type[Work],
    *,
    device: torch.device | str = "cpu",
    quick: bool = False,
    say: Say = lambda line: None,
) -> Results:
    """Check every contender of one work, then time them in turn."""
    # What other works compiled counts against a limit, beyond which torch compiles no more.
    torch.compiler.reset()
    work = work_class(device)
    say(f"{work.name}: checking against float64")
    agreements, left_out, failures = _check_all(work, quick)
    rounds = work.quick_rounds if quick else work.rounds
    say(f"{work.name}: timing {len(agreements)} contenders in {rounds} rounds")
    comparison = Comparison({})
    # Where every contender has failed there is nothing to time, and why is all there is to tell.
    if agreements:
        comparison = interleave(
            {label: work.repetition(label) for label in agreements},
            rounds=rounds,
            nanoseconds_of=nanoseconds_on(work.device),
            calls=work.calls,
        )
    rows = [_row(work, label, agreements[label], comparison) for label in agreements]
    targets = [_target(target, comparison) for target in work.targets]
    return {
        "name": work.name,
        "title": work.title,
        "bytes": work.moved_bytes(),
        "caches": work.caches,
        "rows": rows,
        "targets": [target for target in targets if target is not None],
        "left_out": left_out,
        "failures": failures,
    }


def check(work: Work, label: str) -> Agreement | str:
    """Compare a contender with float64, or say why it cannot run here.

    ``torch.compile`` may be missing something, and a rival may not run on a GPU.
    """
    entry = work.entries[label]
    compiler = os.environ.get("CXX", "g++")
    if entry.compiled and shutil.which(compiler) is None:
        return f"no C++ compiler ({compiler})"
    try:
        return work.check(label)
    except Missing as error:
        return str(error)
    except Disagreement as error:
        if not _may_be_left_out(work, entry):
            raise
        return str(error)
    # What inductor raises where the headers of Python or OpenMP are missing.
    except RuntimeError as error:
        if not entry.compiled and not _may_be_left_out(work, entry):
            raise
        return _why_left_out(entry, error)
    # What Triton, CuPy and dlpack raise on a GPU need not be a RuntimeError.
    except Exception as error:
        if work.device.type != "cuda" or not (entry.compiled or _may_be_left_out(work, entry)):
            raise
        return _why_left_out(entry, error)


def _why_left_out(entry: Contender, error: Exception) -> str:
    return f"torch.compile: {type(error).__name__}" if entry.compiled else _in_short(error)


def _may_be_left_out(work: Work, entry: Contender) -> bool:
    return work.device.type == "cuda" and entry.role == "rival"


def _check_all(
    work: Work, quick: bool
) -> tuple[dict[str, Agreement], dict[str, str], dict[str, str]]:
    agreements: dict[str, Agreement] = {}
    left_out: dict[str, str] = {}
    failures: dict[str, str] = {}
    caught = Exception if work.device.type == "cuda" else ()
    for label, entry in work.entries.items():
        try:
            result = "quick run" if quick and entry.compiled else check(work, label)
        except caught as error:
            failures[label] = result = _in_short(error)
        if isinstance(result, Agreement):
            agreements[label] = result
        else:
            left_out[label] = result
    return agreements, left_out, failures


def _in_short(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"


def _row(work: Work, label: str, agreement: Agreement, comparison: Comparison) -> dict[str, Any]:
    entry = work.entries[label]
    time = comparison.time(label)
    plain, copy = work.plain_of(label), work.copy_of(label)
    plain = plain if plain in comparison.seconds else None
    moved = work.moved_bytes()
    losses = work.losses(label)
    if agreement.loss is not None:
        losses["checked"] = agreement.loss
    return {
        "contender": label,
        "role": entry.role,
        "compiled": entry.compiled,
        "graphed": entry.graphed,
        "device": work.device.type,
        "dtype": str(work.dtype).removeprefix("torch."),
        "rounds": comparison.rounds,
        "milliseconds": _scaled(time, 1e3),
        "added_to": plain,
        "added_milliseconds": _scaled(comparison.added(label, plain), 1e3) if plain else None,
        "gigabytes_per_second": moved / time.median * 1e-9 if moved else None,
        "percent_of_copy": (
            comparison.percent(copy, label).as_dict()
            if copy and copy in comparison.seconds
            else None
        ),
        "losses": losses,
        "value_error": agreement.value_error,
        "gradient_error": agreement.gradient_error,
    }


def _target(target: Target, comparison: Comparison) -> dict[str, Any] | None:
    try:
        measured = target.measure(comparison)
    except (KeyError, ValueError):
        # A contender was left out.
        return None
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
