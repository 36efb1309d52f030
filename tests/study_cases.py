"""Small image sets and a small study, for the tests of all studies."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from selkern.data import ImageSet, Splits
from selkern.study import training
from selkern.study.base import Cell, Study, Tick
from selkern.study.folder import Folder, Row
from selkern.study.processes import run_cells
from selkern.study.training import Objective, Recipe, Trainer

CPU = torch.device("cpu")


def stripes(count: int, classes: int = 4, size: int = 8, seed: int = 0) -> ImageSet:
    """Noisy images of one channel whose bright row tells the class."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    pixels = generator.integers(0, 100, (count, size, size), dtype=np.uint8)
    pixels[np.arange(count), labels * (size // classes)] += 120
    return ImageSet(pixels, labels, classes=tuple(str(k) for k in range(classes)))


def random_images(count: int, seed: int) -> ImageSet:
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    # Brighter in one third of the rows, by class, so that there is something to learn.
    pixels = generator.integers(0, 120, (count, 6, 6))
    for row, label in zip(pixels, labels):
        row[2 * label : 2 * label + 2] += 100
    return ImageSet(pixels.astype(np.uint8), labels)


def splits(train: int = 60, test: int = 30) -> Splits:
    return Splits(stripes(train, seed=1), stripes(test, seed=2))


def make_model(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(96, 12),
        nn.ReLU(),
        nn.Linear(12, 4),
    )


RECIPE = Recipe(epochs=4, batch_size=16, learning_rate=0.05, milestones=(3,))

WAITS_IN = "SELKERN_TEST_WAITS_IN"
"""Names the cell and the part in which a process waits to be killed."""


@dataclass(frozen=True)
class LoggedStudy(Study):
    """Trains a small network and writes down everything that it begins."""

    seeds: Sequence[int]
    fails_at: int | None = None
    dies_at: int | None = None
    device: torch.device = CPU

    name: ClassVar[str] = "logged"
    parts: ClassVar[tuple[str, ...]] = ("training", "weights")

    def settings(self) -> Mapping[str, Any]:
        return {"study": self.name}

    def cells(self) -> Sequence[Cell]:
        return [Cell("plain", seed) for seed in self.seeds]

    def epochs(self, cell: Cell) -> int:
        return RECIPE.epochs

    def steps(self, part: str) -> int:
        return RECIPE.epochs if part == "training" else 1

    def measure(self, cell: Cell, part: str, folder: Folder, tick: Tick) -> list[Row]:
        log(folder, f"{cell.seed} {part}")
        # Here, because every process has its own.
        training.SECONDS_BETWEEN_CHECKPOINTS = 0.0
        if cell.seed == self.fails_at:
            raise ArithmeticError("the loss\nis nan")
        if cell.seed == self.dies_at:
            os._exit(7)
        model = make_model(cell.seed)
        if part == "training":
            objective = WaitingObjective(model, folder, cell)
            trainer = Trainer(model, objective, RECIPE, cell.seed, CPU)
            trained = trainer.run(stripes(40), stripes(20, seed=3), folder, cell, tick)
            return [{"epoch": trained.epoch, "loss": trained.loss}]
        wait_if_asked(f"{cell.seed} {part}", folder)
        state = folder.load(cell.name, "network", CPU)
        assert state is not None
        tick(1)
        return [{"sum": float(sum(value.double().sum() for value in state.values()))}]


class WaitingObjective(Objective):
    def __init__(self, model: nn.Module, folder: Folder, cell: Cell) -> None:
        super().__init__(model)
        self.folder = folder
        self.cell = cell
        self.epoch = 0

    def begin_epoch(self, images: ImageSet, generator: torch.Generator) -> None:
        self.epoch += 1
        log(self.folder, f"{self.cell.seed} epoch")
        if self.epoch == 3:
            wait_if_asked(f"{self.cell.seed} training", self.folder)


def log(folder: Folder, line: str) -> None:
    with open(folder.path / "begun.log", "a", encoding="ascii") as file:
        file.write(f"{line}\n")


def begun(folder: Folder) -> list[str]:
    return (folder.path / "begun.log").read_text(encoding="ascii").splitlines()


def wait_if_asked(where: str, folder: Folder) -> None:
    if os.environ.get(WAITS_IN) == where:
        parent = os.getppid()
        (folder.path / "waiting").touch()
        while os.getppid() == parent:
            time.sleep(0.02)
        os._exit(1)


def main(path: str, processes: str) -> None:
    """Run the small study."""
    study, folder = LoggedStudy(seeds=(0, 1, 2)), Folder(Path(path))
    with folder.opened(study.settings()):
        failed = run_cells(
            study,
            study.missing(folder),
            folder,
            processes=int(processes),
            threads=1,
            tick=lambda steps: None,
        )
    assert not failed, failed


if __name__ == "__main__":
    main(*sys.argv[1:])
