"""What `make cuda` writes down."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from on_gpu_run import Result, last_lines

PRIVATE = ("executable", "compute-sanitizer", "ncu")
KEPT = ("benchmark.json", "benchmark.md", "profile.md", "on_gpu.json", "on_gpu.md")
LONGEST_LOG = 8_000_000


def read_results(folder: Path) -> dict[str, Any] | None:
    """Return what the benchmarks wrote, or None where they wrote nothing."""
    try:
        text = (folder / "benchmark.json").read_text(encoding="utf-8")
        results: dict[str, Any] = json.loads(text)
    except (OSError, ValueError):
        return None
    return results


def public(probe: dict[str, Any]) -> dict[str, Any]:
    """Leave out the paths of the machine."""
    return {name: value for name, value in probe.items() if name not in PRIVATE}


def summary(
    probe: dict[str, Any], parts: Iterable[Result], measured: dict[str, Any] | None, last: str
) -> str:
    lines = [f"# selkern on {probe['gpu'] or 'a machine without a GPU'}", ""]
    lines += [f"- {name}: {value}" for name, value in public(probe).items()]
    lines += ["", "| step | part | became | s | detail |", "| --- | --- | --- | ---: | --- |"]
    for part in parts:
        detail = part.detail.replace("|", "\\|")
        lines.append(
            f"| {part.step} | {part.name} | {part.status} | {part.seconds:.0f} | {detail} |"
        )
    return "\n".join([*lines, "", *_targets(measured), "", last, ""])


def _targets(measured: dict[str, Any] | None) -> list[str]:
    if measured is None:
        return ["Nothing was measured."]
    lines = [f"- {name}: {rate:.0f}" for name, rate in measured.get("ceilings", {}).items()]
    for work in measured["works"]:
        for target in work["targets"]:
            sign = ">=" if target["at_least"] else "<="
            lines.append(
                f"- {'reached' if target['reached'] else 'MISSED'}: {work['name']}: "
                f"{target['quantity']} {target['measured']['median']:.2f} {target['unit']} "
                f"({sign} {target['bound']:.3g})"
            )
    return lines


def copy_out(folder: Path, logs: Path, out: Path) -> None:
    """Copy the results and one file with all logs."""
    out.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        if (folder / name).exists():
            shutil.copyfile(folder / name, out / name)
    texts = [f"==== {log.name}\n{log.read_text(errors='replace')}\n" for log in _oldest(logs)]
    (out / "on_gpu.log").write_text("".join(texts)[-LONGEST_LOG:], encoding="utf-8")


def _oldest(logs: Path) -> list[Path]:
    return sorted(logs.glob("*.log"), key=lambda log: log.stat().st_mtime)


def complaint(output: str) -> str:
    """The line of compute-sanitizer that sums up."""
    lines = [line.strip("= ") for line in output.splitlines() if line.startswith("=====")]
    sums = [line for line in lines if "SUMMARY" in line]
    return (sums or lines[-1:] or [last_lines(output, 1)])[-1][:200]
