"""The folder of a study: what is finished lies there, and is never done again."""

from __future__ import annotations

import fcntl
import io
import json
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from selkern._command import create_folder, write_json, write_whole

__all__ = ["Folder", "Row"]

Row = dict[str, Any]
"""One measurement: what was measured on which network under which perturbation."""

SHOWN_DIFFERENCES = 3
"""In what a folder is refused with."""

_LEFT_BEHIND = ".*.part"


class Folder:
    """Results of a study on disk.

    Every finished part of a cell is a file that is written whole, so that a study which was killed
    goes on with what is missing.

    Parameters
    ----------
    path : Path
        Made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def opened(self, settings: Mapping[str, Any]) -> Iterator[None]:
        """Hold the folder for one study with these settings.

        Raises
        ------
        ValueError
            If it is a file, another process holds it, or it has results of other settings.
        """
        create_folder(self.path)
        with open(self.path / ".lock", "w", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(f"{self.path} is in use by another study") from None
            self._check(settings)
            for unfinished in self.path.rglob(_LEFT_BEHIND):
                unfinished.unlink(missing_ok=True)
            yield

    def _check(self, settings: Mapping[str, Any]) -> None:
        path = self.path / "study.json"
        wanted = json.loads(json.dumps(settings))
        results = self.path / "results.jsonl"
        is_empty = not results.exists() or results.stat().st_size == 0
        if not path.exists() or (is_empty and not any(self.path.glob("cells/*/*"))):
            write_json(wanted, path)
            return
        found = _read(path)
        if not isinstance(found, dict):
            raise ValueError(
                f"{path} must hold the settings of a study, got {type(found).__name__}"
            )
        if "study" in found and found["study"] != wanted.get("study"):
            raise ValueError(
                f"{self.path} holds a {found['study']} study, and this is a {wanted.get('study')} "
                "study: choose another folder"
            )
        differences = _differences("settings", found, wanted)
        if differences:
            more = len(differences) - SHOWN_DIFFERENCES
            told = differences[:SHOWN_DIFFERENCES] + [f"and {more} more"] * (more > 0)
            raise ValueError(
                f"{self.path} holds results with {'; '.join(told)}: choose another folder"
            )

    def is_done(self, cell: str, part: str) -> bool:
        """Whether a part of a cell is finished."""
        return self._part(cell, part).exists()

    def write(self, cell: str, part: str, rows: Sequence[Row]) -> None:
        """Keep the measurements of a part, which is then finished."""
        path = self._part(cell, part)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(list(rows), path)

    def read(self, cell: str, part: str) -> list[Row]:
        """Return the measurements of a finished part; a ValueError names a file with others."""
        path = self._part(cell, part)
        rows = _read(path)
        if not (isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows)):
            raise ValueError(f"{path} must hold measurements as they were written: remove it")
        return rows

    def save(self, cell: str, name: str, state: Mapping[str, Any]) -> None:
        """Keep the state of a network or of its training."""
        content = io.BytesIO()
        torch.save(dict(state), content)
        path = self._state(cell, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content.getvalue())

    def load(self, cell: str, name: str, device: torch.device) -> dict[str, Any] | None:
        """Return a state that was saved, or None."""
        path = self._state(cell, name)
        if not path.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        except Exception as error:
            # A damaged file ends in errors of many kinds.
            raise ValueError(f"{path} cannot be read, remove it: {error}") from error
        return state

    def remove(self, cell: str, name: str) -> None:
        """Forget a state."""
        self._state(cell, name).unlink(missing_ok=True)

    def _part(self, cell: str, part: str) -> Path:
        return self.path / "cells" / cell / f"{part}.json"

    def _state(self, cell: str, name: str) -> Path:
        return self.path / "cells" / cell / f"{name}.pt"


def _differences(name: str, found: Any, wanted: Any) -> list[str]:
    """Tell each setting that differs by its own name, whatever it is a part of."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        names = sorted(found.keys() | wanted.keys())
        parts = [_differences(part, found.get(part), wanted.get(part)) for part in names]
        return list(dict.fromkeys(line for lines in parts for line in lines))
    if found == wanted:
        return []
    return [f"{name} = {reprlib.repr(found)}, and this study has {reprlib.repr(wanted)}"]


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} must be JSON as it was written here: {error}") from error
