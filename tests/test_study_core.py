"""What all studies are made of: the folder, trainings that go on, measures, processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from study_cases import (
    CPU,
    RECIPE,
    WAITS_IN,
    LoggedStudy,
    begun,
    make_model,
    stripes,
)
from torch import nn

import selkern
from selkern import analysis
from selkern._outputs import LayerOutputs, layers_of_kind
from selkern.study import training
from selkern.study.base import Cell, finish
from selkern.study.folder import Folder
from selkern.study.measures import (
    FRACTIONS,
    accuracy,
    selectivity,
    spectra,
    under_perturbation,
)
from selkern.study.processes import run_cells
from selkern.study.training import Objective, Recipe, Trainer

pytest.importorskip("scipy")

CELL = Cell("plain", 0)


@pytest.fixture(autouse=True)
def _one_thread(restore_threads: None) -> None:
    torch.set_num_threads(1)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "study")


class TestFolder:
    def test_a_part_is_done_once_it_is_written(self, folder: Folder) -> None:
        assert not folder.is_done("a", "clean")
        folder.write("a", "clean", [{"accuracy": 0.5}])
        assert folder.is_done("a", "clean")
        assert folder.read("a", "clean") == [{"accuracy": 0.5}]

    def test_a_write_that_is_cut_short_leaves_nothing(
        self, folder: Folder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def killed(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            folder.write("a", "clean", [{"accuracy": 0.5}])
        monkeypatch.undo()
        assert not folder.is_done("a", "clean")
        with folder.opened({"study": "x"}):
            assert not list(folder.path.rglob("*.part"))

    def test_a_state_comes_back_as_it_was(self, folder: Folder) -> None:
        assert folder.load("a", "network", CPU) is None
        state = make_model().state_dict()
        folder.save("a", "network", state)
        loaded = folder.load("a", "network", CPU)
        assert loaded is not None
        assert all(torch.equal(state[name], loaded[name]) for name in state)
        folder.remove("a", "network")
        folder.remove("a", "network")
        assert folder.load("a", "network", CPU) is None

    def test_other_settings_are_refused_by_name(self, folder: Folder) -> None:
        with folder.opened({"epochs": 3, "alphas": (1.0, 2.0)}):
            folder.write("a", "clean", [{"accuracy": 0.5}])
        with folder.opened({"epochs": 3, "alphas": (1.0, 2.0)}):
            pass
        with (
            pytest.raises(ValueError, match="epochs = 3, and this study has 4: choose another"),
            folder.opened({"epochs": 4, "alphas": (1.0, 2.0)}),
        ):
            pass

    def test_other_settings_are_told_in_short(self, folder: Folder) -> None:
        def settings(**of_all: float) -> dict[str, Any]:
            return {"networks": {name: {"recipe": of_all} for name in ("mlp", "cnn")}}

        with folder.opened(settings(epochs=1, rate=0.1, beta=1.0, steps=9)):
            folder.write("a", "clean", [{"accuracy": 0.5}])
        for changed, message in (
            (settings(epochs=3, rate=0.1, beta=1.0, steps=9), "with epochs = 1, .* has 3: choose"),
            (settings(epochs=3, rate=1, beta=3.0, steps=8), "beta = 1.0, .*; epochs .*; and 1 mo"),
        ):
            with pytest.raises(ValueError, match=message), folder.opened(changed):
                pass

    def test_the_study_of_a_folder_is_named(self, folder: Folder) -> None:
        with folder.opened({"study": "spectrum", "epochs": 3}):
            folder.write("a", "clean", [{"accuracy": 0.5}])
        message = "holds a spectrum study, and this is a recording study: choose another folder"
        with pytest.raises(ValueError, match=message), folder.opened({"study": "recording"}):
            pass

    def test_a_file_is_no_folder(self, tmp_path: Path) -> None:
        file = tmp_path / "file"
        file.touch()
        with (
            pytest.raises(ValueError, match="file is a file, not a folder"),
            Folder(file).opened({}),
        ):
            pass

    def test_a_folder_in_which_nothing_was_finished_takes_other_settings(
        self, folder: Folder
    ) -> None:
        for epochs in (3, 4):
            with folder.opened({"epochs": epochs}):
                pass
        assert json.loads((folder.path / "study.json").read_text()) == {"epochs": 4}
        (folder.path / "results.jsonl").write_text("{}")
        with pytest.raises(ValueError, match="choose another"), folder.opened({"epochs": 5}):
            pass

    def test_one_study_at_a_time(self, folder: Folder) -> None:
        with (
            folder.opened({}),
            pytest.raises(ValueError, match="in use by another study"),
            Folder(folder.path).opened({}),
        ):
            pass

    def test_a_damaged_file_is_named(self, folder: Folder) -> None:
        folder.write("a", "clean", [{"accuracy": 0.5}])
        path = folder.path / "cells" / "a" / "clean.json"
        for content, message in (("[{", "must be JSON"), ("[]", "must hold measurements")):
            path.write_text(content)
            with pytest.raises(ValueError, match=rf"clean\.json {message}"):
                folder.read("a", "clean")
        folder.save("a", "network", make_model().state_dict())
        state = path.with_name("network.pt")
        state.write_bytes(state.read_bytes()[:500])
        with pytest.raises(ValueError, match=r"network\.pt cannot be read"):
            folder.load("a", "network", CPU)


class Stopping(Objective):
    """Is stopped in an epoch."""

    def __init__(self, model: nn.Module, after: int) -> None:
        super().__init__(model)
        self.left = after

    def begin_epoch(self, images: Any, generator: torch.Generator) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


def train(folder: Folder, recipe: Recipe = RECIPE, objective: Any = Objective) -> nn.Module:
    model = make_model()
    trainer = Trainer(model, objective(model), recipe, 5, CPU)
    trainer.run(stripes(40), stripes(20, seed=3), folder, CELL)
    return model


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


class TestTrainer:
    def test_learns(self, folder: Folder) -> None:
        model = train(folder, Recipe(epochs=12, batch_size=16, learning_rate=0.05))
        assert accuracy(model, stripes(40, seed=9).batches(16)) > 0.9

    @pytest.mark.parametrize("optimizer", ["sgd", "adam"])
    @pytest.mark.parametrize("epochs", [1, 3])
    def test_goes_on_where_it_was_stopped(
        self, epochs: int, optimizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
        recipe = Recipe(5, 16, 0.01, optimizer, milestones=(2,))
        whole = train(Folder(tmp_path / "whole"), recipe)
        folder = Folder(tmp_path / "stopped")
        with pytest.raises(KeyboardInterrupt):
            train(folder, recipe, lambda model: Stopping(model, epochs))
        torch.manual_seed(99)
        begun_epochs = []

        class Counting(Objective):
            def begin_epoch(self, images: Any, generator: torch.Generator) -> None:
                begun_epochs.append(1)

        assert same_weights(whole, train(folder, recipe, Counting))
        assert len(begun_epochs) == 5 - epochs

    def test_keeps_the_first_network_of_the_best_validation_accuracy(
        self, folder: Folder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shares = iter([0.2, 0.7, 0.7, 0.1])
        states = []

        def share(model: nn.Module, batches: Any) -> float:
            states.append({name: value.clone() for name, value in model.state_dict().items()})
            return next(shares)

        monkeypatch.setattr(training, "accuracy", share)
        model = make_model()
        trainer = Trainer(model, Objective(model), RECIPE, 5, CPU)
        trained = trainer.run(stripes(40), stripes(20), folder, CELL)
        assert (trained.epoch, trained.validation_accuracy) == (2, 0.7)
        assert all(torch.equal(states[1][name], v) for name, v in model.state_dict().items())

    def test_keeps_the_last_network_without_validation(self, folder: Folder) -> None:
        model = make_model()
        trainer = Trainer(model, Objective(model), RECIPE, 5, CPU)
        trained = trainer.run(stripes(40), None, folder, CELL)
        assert (trained.epoch, trained.validation_accuracy) == (RECIPE.epochs, None)

    def test_the_learning_rate_falls_at_each_milestone(self) -> None:
        recipe = Recipe(5, 16, 0.1, milestones=(1, 3))
        rates = [recipe.learning_rate_in(epoch) for epoch in range(5)]
        assert rates == pytest.approx([0.1, 0.01, 0.01, 0.001, 0.001])

    def test_a_loss_that_is_not_finite_is_an_error(self, folder: Folder) -> None:
        with pytest.raises(ArithmeticError, match="the loss is nan in epoch"):
            train(folder, Recipe(3, 16, 1e30))


class TestMeasures:
    @pytest.fixture
    def model(self) -> nn.Module:
        model = make_model()
        model(stripes(16).tensors()[0])
        return model.train()

    def test_batches_do_not_matter(self, model: nn.Module) -> None:
        layers = layers_of_kind(model, nn.ReLU)
        images, labels = stripes(45).tensors()
        model.eval()
        with torch.no_grad(), LayerOutputs(layers) as outputs:
            logits = model(images)
        expected = {
            name: float(selkern.selectivity_index(maps, labels, 4).mean())
            for name, maps in outputs.maps.items()
        }
        model.train()
        share, index = selectivity(model, stripes(45).batches(7), layers, 4)
        assert share == float((logits.argmax(1) == labels).double().mean())
        assert index == pytest.approx(expected, rel=1e-5)
        assert accuracy(model, stripes(45).batches(7)) == share
        assert all(module.training for module in model.modules())

    def test_dimensionality_is_that_of_all_samples_at_once(self, model: nn.Module) -> None:
        layers = layers_of_kind(model, nn.ReLU)
        images, labels = stripes(45).tensors()

        def darken(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
            return 0.6 * x

        measured = under_perturbation(model, stripes(45).batches(7), layers, darken)
        model.eval()
        with torch.no_grad(), LayerOutputs(layers) as outputs:
            model(images)
            clean = dict(outputs.maps)
            logits = model(darken(images, labels))
        assert measured.accuracy == float((logits.argmax(1) == labels).double().mean())
        for name, maps in outputs.maps.items():
            assert measured.dimensionality[name] == pytest.approx(
                [
                    float(analysis.perturbation_dimensionality(clean[name], maps, f).relative)
                    for f in FRACTIONS
                ]
            )

    def test_spectra_are_those_of_all_samples_at_once(self, model: nn.Module) -> None:
        layers = layers_of_kind(model, nn.ReLU)
        measured = spectra(model, stripes(45).batches(7), layers)
        model.eval()
        with torch.no_grad(), LayerOutputs(layers) as outputs:
            model(stripes(45).tensors()[0])
        for name, x in outputs.maps.items():
            expected = selkern.eigenspectrum(x.flatten(1).double())
            torch.testing.assert_close(
                measured[name][: len(expected)], expected, rtol=1e-5, atol=1e-9
            )


class TestProcesses:
    @pytest.mark.slow
    def test_a_network_that_fails_is_told_and_the_others_are_finished(self, folder: Folder) -> None:
        folder.path.mkdir()
        study = LoggedStudy(seeds=(0, 1, 2, 3), fails_at=1, dies_at=2)
        ticks: list[int] = []
        failed = run_cells(study, study.cells(), folder, processes=2, threads=1, tick=ticks.append)
        assert {cell.seed: text for cell, text in failed.items()} == {
            1: "ArithmeticError: the loss is nan",
            2: "its process ended with exit code 7",
        }
        assert [cell.seed for cell in study.missing(folder)] == [1, 2]
        assert sum(ticks) == 2 * (RECIPE.epochs + 1)
        assert len(study.rows(folder)) == 4

    @pytest.mark.slow
    @pytest.mark.parametrize(("part", "processes"), [("training", "2"), ("weights", "1")])
    def test_a_study_that_was_killed_loses_nothing_and_repeats_nothing(
        self, part: str, processes: str, tmp_path: Path
    ) -> None:
        program = [sys.executable, Path(__file__).with_name("study_cases.py")]
        whole, folder = Folder(tmp_path / "whole"), Folder(tmp_path / "killed")
        subprocess.run([*program, whole.path, "1"], check=True)
        where = f"1 {part}"
        waiting = subprocess.Popen(
            [*program, folder.path, processes], env={**os.environ, WAITS_IN: where}
        )
        deadline = time.monotonic() + 120
        while not (folder.path / "waiting").exists():
            assert waiting.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        waiting.send_signal(signal.SIGKILL)
        waiting.wait()
        study = LoggedStudy(seeds=(0, 1, 2))
        before = set(begun(folder))
        assert Cell("plain", 1) in study.missing(folder)
        subprocess.run([*program, folder.path, "1"], check=True)
        assert study.rows(folder) == study.rows(whole)
        lines = begun(folder)
        # What was being done when the process was killed is all that is begun again.
        again = {line for line in before if lines.count(line) > begun(whole).count(line)}
        in_progress = {where, "1 epoch"} if part == "training" else {where}
        assert where in again
        assert {line for line in again if line.startswith("1")} == in_progress
        if part == "training":
            assert lines.count("1 epoch") == RECIPE.epochs + 1


def test_finishing_a_cell_forgets_its_checkpoint(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    folder.path.mkdir()
    finish(LoggedStudy(seeds=(0,)), CELL, folder, lambda steps: None)
    assert sorted(path.name for path in (folder.path / "cells" / CELL.name).iterdir()) == [
        "network.pt",
        "training.json",
        "weights.json",
    ]
