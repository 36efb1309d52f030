"""Runs the operators on the sizes of the benchmarks for ncu to watch, and reads what it saw."""

from __future__ import annotations

import argparse
import csv
import fnmatch
import sys
from collections.abc import Sequence
from statistics import median

from machine_code import short

# Each kernel at sizes that are to reach a target.
WORKS = (
    "*_256x56x56_*",
    "*_2048x7x7_*",
    "pgd_step_*",
    "mean_selectivity",
    "class_means_1000",
    "eig*_256x*",
    "eigenspectrum_128x2000",
    "frozen_basis_3500x2000",
)
STALL = "smsp__average_warps_issue_stalled_{}_per_issue_active.ratio"
METRICS = {
    "us": "gpu__time_duration.sum",
    "DRAM, %": "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "SM, %": "sm__throughput.avg.pct_of_peak_sustained_elapsed",
    "issuing, %": "smsp__issue_active.avg.pct_of_peak_sustained_active",
    "warps, %": "sm__warps_active.avg.pct_of_peak_sustained_active",
    **{
        f"waits: {name.replace('_', ' ')}": STALL.format(name)
        for name in ("long_scoreboard", "short_scoreboard", "barrier", "wait", "lg_throttle")
    },
}
"""What limits a kernel; the waits are warps that wait for that while one issues."""
PROFILER = (
    "ncu",
    "--clock-control",
    "none",
    "--csv",
    "--page",
    "raw",
    "--kernel-name-base",
    "demangled",
    "--kernel-name",
    "regex:selkern",
    "--metrics",
    ",".join(METRICS.values()),
)
MICROSECONDS = {"ns": 1e-3, "nsecond": 1e-3, "us": 1.0, "usecond": 1.0, "ms": 1e3, "msecond": 1e3}


def rows_of(output: str) -> list[list[str]]:
    """Return a row for each kernel and grid: how many launches, and their medians."""
    lines = [line for line in output.splitlines() if line.startswith('"')]
    header, units, *launches = csv.reader(lines)
    column = {name: index for index, name in enumerate(header)}
    time = MICROSECONDS.get(units[column[METRICS["us"]]], 1.0)
    seen: dict[tuple[str, str], list[list[float]]] = {}
    for launch in launches:
        key = short(launch[column["Kernel Name"]]), launch[column["Grid Size"]]
        values = [float(launch[column[name]].replace(",", "")) for name in METRICS.values()]
        seen.setdefault(key, []).append([values[0] * time, *values[1:]])
    return [
        [f"`{name}`", grid, str(len(of_kernel)), *(f"{median(v):.1f}" for v in zip(*of_kernel))]
        for (name, grid), of_kernel in seen.items()
    ]


def table(output: str) -> str:
    """Return what ncu printed as a table in Markdown."""
    columns = ["kernel", "grid", "launches", *METRICS]
    rule = ["---", *["---:"] * (len(columns) - 1)]
    rows = [columns, rule, *rows_of(output)]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def run_once(globs: Sequence[str], device: str) -> int:
    """Run what selkern does in each work, without a graph; return how many works that were."""
    from selkern._benchmarks.measure import works_of

    works = works_of(device)
    names = [name for glob in globs for name in fnmatch.filter(works, glob)]
    for name in names:
        work = works[name](device)
        for entry in work.entries.values():
            if entry.role == "selkern" and not entry.compiled and not entry.graphed:
                getattr(work, entry.method)()
    return len(names)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", action="append", help="a work, or a glob of their names")
    options = parser.parse_args(arguments)
    print(f"{run_once(options.only or WORKS, options.device)} works")
    return 0


if __name__ == "__main__":
    sys.exit(main())
