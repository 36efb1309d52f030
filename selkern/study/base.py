"""A study: networks to train and measure, one cell each, and what comes of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from selkern.study.folder import Folder, Row

__all__ = ["Cell", "Study", "Tick", "finish"]

Tick = Callable[[int], object]
"""Called with the number of steps of a study that are done."""


@dataclass(frozen=True)
class Cell:
    """One network: how it is trained, and its seed."""

    kind: str
    seed: int

    @property
    def name(self) -> str:
        """Name of the cell's folder."""
        return f"{self.kind}_seed={self.seed}".replace(" ", "_").replace("/", "-")


class Study(ABC):
    """What the runner needs to know of a study; it goes to other processes by pickling."""

    name: ClassVar[str]
    device: torch.device
    """Where networks are trained and measured."""
    parts: ClassVar[tuple[str, ...]]
    """What is done with a cell, in this order, each kept when it is finished; training first."""

    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """What decides the measurements of a cell, as JSON."""

    @abstractmethod
    def cells(self) -> Sequence[Cell]:
        """Every network of the study."""

    @abstractmethod
    def epochs(self, cell: Cell) -> int:
        """For how long a network is trained."""

    @abstractmethod
    def steps(self, part: str) -> int:
        """Number of steps of a part, for the progress bar."""

    @abstractmethod
    def measure(self, cell: Cell, part: str, folder: Folder, tick: Tick) -> list[Row]:
        """Do a part of a cell; those before it are finished."""

    def missing(self, folder: Folder) -> dict[Cell, int]:
        """Cells that are not finished, with the number of steps that are left."""
        steps = {part: self.steps(part) for part in self.parts}
        left = {
            cell: sum(steps[part] for part in self.parts if not folder.is_done(cell.name, part))
            for cell in self.cells()
        }
        return {cell: steps for cell, steps in left.items() if steps}

    def rows(self, folder: Folder) -> list[Row]:
        """All measurements of the cells that are finished, in the order of the cells."""
        missing = self.missing(folder)
        return [
            {"network": cell.kind, "seed": cell.seed, **row}
            for cell in self.cells()
            if cell not in missing
            for part in self.parts
            for row in folder.read(cell.name, part)
        ]


def finish(study: Study, cell: Cell, folder: Folder, tick: Tick) -> None:
    """Do what is missing of a cell."""
    for part in study.parts:
        if not folder.is_done(cell.name, part):
            folder.write(cell.name, part, study.measure(cell, part, folder, tick))
    folder.remove(cell.name, "checkpoint")
