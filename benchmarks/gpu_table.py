"""The README's table of a GPU, with or without results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .report import machine_line, versions_line
from .tables import markdown_table
from .works import CUDA_HEADLINES, CUDA_WORKS

__all__ = ["gpu_table"]

COLUMNS = (
    "work",
    "PyTorch",
    "PyTorch in a graph",
    "torch.compile",
    "selkern",
    "selkern in a graph",
    "noise",
    "% of copy",
)
NOT_MEASURED = "Not measured: no GPU was reached."
MODES = (
    ("rival", False, False),
    ("rival", False, True),
    ("rival", True, False),
    ("selkern", False, False),
    ("selkern", False, True),
    ("noise", False, False),
)


def gpu_table(results: dict[str, Any] | None, names: Sequence[str] = CUDA_HEADLINES) -> str:
    """One row a work; a work that was not measured says so. Without results, one line."""
    if results is None:
        return f"{NOT_MEASURED}\n"
    measured = {work["name"]: work for work in results["works"]}
    rows = [_row(measured[name]) if name in measured else _missing(name, results) for name in names]
    line = (
        "Medians in ms of the fastest contender, with a sign what it adds to the plain work of its "
        "kind; `% of copy` is the bandwidth of selkern in a graph next to a device-to-device copy."
    )
    line += f" {machine_line(results)}; {versions_line(results)}."
    return f"{markdown_table(COLUMNS, rows)}\n{line}\n"


def _missing(name: str, results: dict[str, Any]) -> list[str]:
    why = results.get("failures", {}).get(name) or results.get("skipped", {}).get(name)
    reason = f"not measured: {why or 'it was left out of the run'}"
    return [CUDA_WORKS[name].title, reason, *[""] * (len(COLUMNS) - 2)]


def _row(work: dict[str, Any]) -> list[str]:
    fastest = [_fastest(work, *mode) for mode in MODES]
    in_graph = _fastest(work, "selkern", False, True)
    percent = in_graph and in_graph["percent_of_copy"]
    of_copy = f"{percent['median']:.0f}" if percent else "-"
    return [work["title"], *map(_time, fastest), of_copy]


def _fastest(
    work: dict[str, Any], role: str, compiled: bool, graphed: bool
) -> dict[str, Any] | None:
    rows = [
        row
        for row in work["rows"]
        if (row["role"], row["compiled"], row["graphed"]) == (role, compiled, graphed)
    ]
    return min(rows, key=lambda row: float(row["milliseconds"]["median"]), default=None)


def _time(row: dict[str, Any] | None) -> str:
    if row is None:
        return "-"
    if row["added_milliseconds"] is None:
        return f"{row['milliseconds']['median']:.3f}"
    return f"{row['added_milliseconds']['median']:+.3f}"
