"""Results as tables: for the terminal, as Markdown, and the README's."""

from __future__ import annotations

from typing import Any

from .tables import markdown_table, print_table
from .works import HEADLINES

__all__ = ["markdown", "print_results", "print_targets", "readme_table"]

Results = dict[str, Any]
Row = dict[str, Any]

TARGET_COLUMNS = (
    "work",
    "quantity",
    "measured",
    "to reach",
    "PyTorch, ms",
    "selkern, ms",
    "noise, read, floor or copy, ms",
)
TIMED_ROLES = (("rival",), ("selkern",), ("noise", "read", "floor", "copy"))


def print_results(results: Results) -> None:
    """Print one table a work, and what was to be reached."""
    for work in results["works"]:
        print_table(f"{work['name']}: {work['title']}", *_work_table(work))
        for label, reason in work["left_out"].items():
            print(f"left out: {label} ({reason})")
    print_targets(results)


def print_targets(results: Results) -> None:
    """Print what was to be reached, and what was."""
    print_table(f"Measured in turn on {machine_line(results)}", *_target_table(results))


def markdown(results: Results) -> str:
    """The whole run as Markdown."""
    parts = [
        "# selkern against plain PyTorch",
        f"{machine_line(results)}.\n{versions_line(results)}. Measured on {results['date']}"
        f"{', quick run' if results['quick'] else ''}.",
        "Medians and quartiles. Contenders take turns, and differences and ratios are taken "
        "round by round. A time with a sign is what a contender adds to the plain work, and the "
        "noise is what the plain work adds to itself. PyTorch is the fastest contender of plain "
        "PyTorch that is not compiled. " + _about_the_clock(results),
    ]
    if "ceilings" in results:
        rows = [[name, f"{rate:.0f}"] for name, rate in results["ceilings"].items()]
        parts.append(markdown_table(("ceiling", "reached"), rows))
    parts.append(markdown_table(*_target_table(results)))
    for work in results["works"]:
        parts.append(f"## {work['name']}\n\n{work['title']}. Caches {_caches(results, work)}")
        parts.append(markdown_table(*_work_table(work)))
        parts += [f"Left out: {label} ({reason})." for label, reason in work["left_out"].items()]
    for what in ("failures", "skipped"):
        entries = results.get(what, {})
        if entries:
            lines = [f"- {name}: {why}" for name, why in entries.items()]
            parts.append("\n".join([f"## {what.capitalize()}\n", *lines]))
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def readme_table(results: Results) -> str:
    """One row a headline: the fastest of plain PyTorch, of torch.compile and of selkern."""
    columns = ("work", "PyTorch", "torch.compile", "selkern", "noise, read or floor")
    measured = {work["name"]: work for work in results["works"]}
    rows = [_readme_row(measured[name]) for name in HEADLINES if name in measured]
    line = (
        "Medians in ms of the fastest contender; with a sign, what it adds to the plain work. "
        f"{machine_line(results)}; {versions_line(results)}."
    )
    return f"{markdown_table(columns, rows)}\n{line}\n"


def _caches(results: Results, work: Results) -> str:
    return f"{work.get('caches', results['caches'])}."


def _about_the_clock(results: Results) -> str:
    if results["machine"]["device"] == "cpu":
        return "Times are the host's."
    return (
        "Times are between two events on the GPU's stream, from an idle GPU, so that an eager "
        "contender's include the host where the GPU waits for it. GB/s counts bytes read and "
        "written, and the percentage is of a device-to-device copy of as many bytes in the same "
        "round, which is captured in a graph where the contender is."
    )


def machine_line(results: Results) -> str:
    machine = results["machine"]
    if "gpu" in machine:
        gpu, clocks = machine["gpu"], results.get("clocks", {})
        clock = clocks.get("at the end", {}).get("SM clock, MHz") or "unknown"
        commit = results.get("commit") or "unknown"
        return f"{gpu['name']}, SM clock {clock} MHz under load, commit {commit}"
    threads = f"{machine['threads']} thread{'' if machine['threads'] == 1 else 's'}"
    return (
        f"{machine['processor']}, {machine['cores']} cores, {threads}, "
        f"selkern's {machine['capability']} kernels"
    )


def versions_line(results: Results) -> str:
    versions = results["versions"]
    return ", ".join(f"{name} {version}" for name, version in versions.items() if version)


def _work_table(work: Results) -> tuple[list[str], list[list[str]]]:
    columns = ["contender", "ms", "adds, ms", "GB/s", "loss", "error of value", "of gradient"]
    has_copy = any(row.get("percent_of_copy") for row in work["rows"])
    if has_copy:
        columns.append("% of copy")
    rows = [
        [
            row["contender"],
            _quartiles(row["milliseconds"], _digits(row)),
            _quartiles(row["added_milliseconds"], _digits(row)),
            _rate(row["gigabytes_per_second"]),
            _losses(row["losses"]),
            _error(row["value_error"]),
            _error(row["gradient_error"]),
            *([_quartiles(row["percent_of_copy"], 1)] if has_copy else []),
        ]
        for row in work["rows"]
    ]
    return columns, rows


def _target_table(results: Results) -> tuple[tuple[str, ...], list[list[str]]]:
    rows = []
    for work in results["works"]:
        times = [_time(_fastest(work, *roles)) for roles in TIMED_ROLES]
        for target in work["targets"]:
            verdict = f"{_bound(target)}: {'yes' if target['reached'] else 'no'}"
            rows.append([work["name"], target["quantity"], _measured(target), verdict, *times])
            # Once is enough.
            times = [""] * len(times)
    return TARGET_COLUMNS, rows


def _readme_row(work: Results) -> list[str]:
    return [
        work["title"],
        _time(_fastest(work, "rival")),
        _time(_fastest(work, "rival", compiled=True)),
        _time(_fastest(work, "selkern")),
        _time(_fastest(work, "noise", "read", "floor")),
    ]


def _fastest(work: Results, *roles: str, compiled: bool = False) -> Row | None:
    rows = [row for row in work["rows"] if row["role"] in roles and row["compiled"] is compiled]
    return min(rows, key=lambda row: float(row["milliseconds"]["median"]), default=None)


def _time(row: Row | None) -> str:
    if row is None:
        return "-"
    added = row["added_milliseconds"]
    if added is None:
        return f"{row['milliseconds']['median']:.{_digits(row)}f}"
    return f"{added['median']:+.{_digits(row)}f}"


def _digits(row: Row) -> int:
    """Short times, of a GPU, need more digits."""
    return 4 if row["milliseconds"]["median"] < 0.2 else 2


def _quartiles(values: dict[str, float] | None, digits: int = 2) -> str:
    if values is None:
        return "-"
    median, lower, upper = (f"{values[k]:.{digits}f}" for k in ("median", "lower", "upper"))
    return f"{median} [{lower}, {upper}]"


def _measured(target: Results) -> str:
    unit = "x" if target["unit"] == "x" else f" {target['unit']}"
    return f"{_quartiles(target['measured'])}{unit}"


def _bound(target: Results) -> str:
    unit = "x" if target["unit"] == "x" else f" {target['unit']}"
    return f"{'>=' if target['at_least'] else '<='} {target['bound']:.3g}{unit}"


def _losses(losses: dict[str, float]) -> str:
    if not losses:
        return "-"
    if set(losses) == {"checked"}:
        return f"{losses['checked']:.6f}"
    return ", ".join(f"{name} {value:.5f}" for name, value in losses.items() if name != "checked")


def _rate(gigabytes_per_second: float | None) -> str:
    return "-" if gigabytes_per_second is None else f"{gigabytes_per_second:.1f}"


def _error(error: float | None) -> str:
    return "-" if error is None else f"{error:.0e}"
