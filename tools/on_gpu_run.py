"""Runs programs against a deadline and notes what became of each."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

PASSED, FAILED, SKIPPED, TIMED_OUT = "passed", "failed", "skipped", "timed out"


@dataclass
class Result:
    """What became of a part of a step."""

    step: str
    name: str
    status: str
    seconds: float = 0.0
    detail: str = ""
    returncode: int | None = None
    output: str = field(default="", repr=False)

    def line(self) -> str:
        return f"{self.step:10} {self.status:9} {self.seconds:6.1f} s  {self.name}: {self.detail}"

    def as_dict(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "output"}


@dataclass(frozen=True)
class Program:
    """A program to run: its name, command and what it adds to the environment."""

    name: str
    command: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)


class Deadline:
    """When the whole must be over."""

    def __init__(self, minutes: float) -> None:
        self.start = time.monotonic()
        self.end = self.start + 60 * minutes

    def left(self, reserve: float = 0.0) -> float:
        """Seconds that are left, but for those to keep for what comes later."""
        return max(0.0, self.end - time.monotonic() - reserve)

    def passed(self) -> float:
        return time.monotonic() - self.start


class Runner:
    """Runs programs in a folder, writes their output to files, and collects the results."""

    def __init__(
        self, folder: Path, logs: Path, environment: dict[str, str], deadline: Deadline
    ) -> None:
        self.folder = folder
        self.logs = logs
        self.environment = environment
        self.deadline = deadline
        self.results: list[Result] = []

    def note(self, result: Result) -> Result:
        self.results.append(result)
        print(result.line(), flush=True)
        return result

    def skip(self, step: str, name: str, reason: str) -> Result:
        return self.note(Result(step, name, SKIPPED, detail=reason))

    def run(self, step: str, program: Program, limit: float, cwd: Path | None = None) -> Result:
        """Run one program for at most `limit` seconds, and never beyond the deadline."""
        limit = min(limit, self.deadline.left())
        if limit < 1:
            return Result(step, program.name, SKIPPED, detail="no time was left")
        log = self.logs / f"{step}-{program.name}.log".replace(" ", "-").replace("/", "-")
        start = time.monotonic()
        with log.open("w", encoding="utf-8") as stream:
            try:
                process = subprocess.Popen(
                    list(program.command),
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    cwd=cwd or self.folder,
                    env={**self.environment, **program.environment},
                    start_new_session=True,
                )
            except OSError as error:
                return Result(step, program.name, FAILED, detail=str(error))
            try:
                returncode: int | None = process.wait(timeout=limit)
            except subprocess.TimeoutExpired:
                returncode = None
            finally:
                # Its children too, which a compiler leaves behind.
                _kill_group(process)
        seconds = time.monotonic() - start
        output = log.read_text(encoding="utf-8", errors="replace")
        if returncode is None:
            detail = f"after {limit:.0f} s"
            return Result(step, program.name, TIMED_OUT, seconds, detail, None, output)
        status = PASSED if returncode == 0 else FAILED
        return Result(step, program.name, status, seconds, "", returncode, output)

    def run_all(
        self, step: str, programs: Sequence[Program], limit: float, at_once: int
    ) -> list[Result]:
        """Run programs side by side; they start in order."""
        end = time.monotonic() + limit

        def run(program: Program) -> Result:
            return self.run(step, program, end - time.monotonic())

        with ThreadPoolExecutor(max(1, at_once)) as pool:
            return list(pool.map(run, programs))


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def output_of(command: Sequence[str], limit: float = 60.0, **options: Any) -> str | None:
    """Return what a program prints, or None where it fails."""
    try:
        finished = subprocess.run(
            list(command), capture_output=True, text=True, timeout=limit, check=False, **options
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return finished.stdout.strip() if finished.returncode == 0 else None


def last_lines(text: str, count: int) -> str:
    return "\n".join(text.strip().splitlines()[-count:])
