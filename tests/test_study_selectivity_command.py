"""``python -m selkern study selectivity``: a tiny study from end to end, and its refusals."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_files import write_cifar10, write_cifar10_c
from study_cases import CPU, splits, stripes

pytest.importorskip("kornia")
pytest.importorskip("matplotlib")
pytest.importorskip("scipy")

from torch import nn

import selkern
from selkern import data
from selkern.__main__ import main
from selkern._outputs import LayerOutputs, layers_of_kind
from selkern.study import images as study_images
from selkern.study.findings import CANNOT_BE_TOLD
from selkern.study.selectivity import presets
from selkern.study.selectivity import study as selectivity_study
from selkern.study.selectivity.networks import DigitsNet
from selkern.study.selectivity.presets import choose
from selkern.study.selectivity.study import SelectivityStudy

ALPHAS = (-2.0, 0.0, 2.0)
RELUS = [f"relu{number}" for number in range(1, 6)]


@pytest.fixture(autouse=True)
def _one_thread(restore_threads: None) -> None:
    torch.set_num_threads(1)


@pytest.fixture
def _tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A study of two epochs on few images under four perturbations."""
    load = study_images._load_images
    monkeypatch.setattr(
        study_images,
        "_load_images",
        lambda source: splits() if source == "digits" else load(source),
    )
    study_images.load_study_images.cache_clear()
    monkeypatch.setattr(selectivity_study, "corruptions_for", lambda channels: ("contrast",))
    monkeypatch.setattr(selectivity_study, "SEVERITIES", (1, 5))
    recipe = replace(presets._SMALL.recipe, epochs=2, batch_size=20)
    tiny = replace(
        presets._SMALL, recipe=recipe, alphas=ALPHAS, seeds=1, validation=20, eps=(0.1,),
        pgd_steps=2, swept_steps=(3,),
    )  # fmt: skip
    monkeypatch.setattr(presets, "_SMALL", tiny)
    yield
    study_images.load_study_images.cache_clear()


Run = Callable[..., int]


@pytest.fixture
def run(tmp_path: Path, _tiny: None) -> Run:
    def run(*arguments: str) -> int:
        options = ["--output", str(tmp_path), "--processes", "1", "--quiet"]
        return main(["study", "selectivity", *options, *arguments])

    return run


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "results.jsonl").read_text().splitlines()]


class TestCommand:
    def test_measures_every_network_under_every_perturbation(
        self, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("--json") == 0
        printed = capsys.readouterr()
        assert printed.err == ""
        summary = json.loads(printed.out)
        assert summary == json.loads((tmp_path / "summary.json").read_text())
        rows = read_rows(tmp_path)
        expected = [
            ("training", 0), ("none", 0), ("contrast", 1), ("contrast", 5), ("FGSM", 0.1),
            ("PGD", 0.1), ("PGD of steps of 0.0001", 3),
        ]  # fmt: skip
        for alpha in ALPHAS:
            of_network = [r for r in rows if r["alpha"] == alpha]
            assert [(r["perturbation"], r["strength"]) for r in of_network] == expected
            assert {r["seed"] for r in of_network} == {0}
        text = (tmp_path / "report.md").read_text()
        for figure in summary["figures"]:
            assert (tmp_path / figure).read_bytes().startswith(b"\x89PNG")
            assert f"]({figure})" in text
        for finding in summary["findings"]:
            assert finding["verdict"] == CANNOT_BE_TOLD
            assert finding["claim"] in text
        assert "scikit-learn's digits are small and easy" in text

    def test_the_rows_hold_what_the_kept_network_does(self, run: Run, tmp_path: Path) -> None:
        assert run("--alphas", "2", "--seeds", "1", "--seed", "4") == 0
        rows = read_rows(tmp_path)
        model = DigitsNet(4)
        model.load_state_dict(
            torch.load(tmp_path / "cells" / "alpha=2_seed=4" / "network.pt", weights_only=True)
        )
        model.eval()
        images, labels = splits().test.tensors()
        dark = data.corrupt(images, "contrast", 5)
        for pixels, name in ((images, "none"), (dark, "contrast")):
            with torch.no_grad(), LayerOutputs(layers_of_kind(model, nn.ReLU)) as outputs:
                right = (model(pixels).argmax(1) == labels).double().mean()
            measured = [r for r in rows if r["perturbation"] == name][-1]
            assert measured["accuracy"] == pytest.approx(float(right))
            if name == "none":
                assert measured["selectivity"] == pytest.approx(
                    {
                        layer: float(selkern.selectivity_index(maps, labels, 4).mean())
                        for layer, maps in outputs.maps.items()
                    },
                    rel=1e-4,
                )

    def test_a_second_run_measures_only_what_is_missing(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert run("--alphas", "-2", "0", "--seeds", "1") == 0
        before = read_rows(tmp_path)
        measured: list[str] = []
        measure = SelectivityStudy.measure

        def noting(self: Any, cell: Any, part: str, *rest: Any) -> Any:
            measured.append(f"{cell.kind} {cell.seed} {part}")
            return measure(self, cell, part, *rest)

        monkeypatch.setattr(SelectivityStudy, "measure", noting)
        assert run("--alphas", "-2", "0", "--seeds", "1") == 0
        assert not measured
        assert read_rows(tmp_path) == before
        (tmp_path / "cells" / "alpha=0_seed=0" / "attacks.json").unlink()
        assert run("--alphas", "-2", "0", "--seeds", "1") == 0
        assert measured == ["alpha=0 0 attacks"]
        assert read_rows(tmp_path) == before

    def test_a_folder_of_another_study_is_refused_in_a_line(
        self, run: Run, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("--alphas", "0", "--seeds", "1") == 0
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            run("--alphas", "0", "--seeds", "1", "--epochs", "5")
        assert end.value.code == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "holds results with epochs = " in error
        assert ", and this study has 5: choose another folder" in error

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            (["--preset", "paper"], "--preset: the paper's networks are for CIFAR-10"),
            (["--alphas", "high"], "argument --alphas: invalid float value: 'high'"),
            (["--alphas", "nan"], "--alphas: alpha must be finite"),
            (["--seeds", "0"], "argument --seeds: must be a whole number from 1 on, got '0'"),
            (["--corrupted", "nowhere"], "--corrupted: "),
        ],
    )
    def test_bad_arguments_are_a_line(
        self, run: Run, arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as end:
            run(*arguments)
        assert end.value.code == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert text in error

    def test_images_that_are_not_there_are_a_line(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as end:
            main(["study", "selectivity", "--data", str(tmp_path / "none")])
        assert end.value.code == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "--data: " in error

    def test_a_network_that_diverges_is_told_and_the_report_is_of_the_others(
        self, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        train = SelectivityStudy._train

        def diverging(self: Any, cell: Any, *rest: Any) -> Any:
            if cell.kind == "alpha=2":
                raise ArithmeticError("the loss is nan in epoch 1")
            return train(self, cell, *rest)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SelectivityStudy, "_train", diverging)
            assert run("--alphas", "0", "2") == 1
        error = capsys.readouterr().err
        assert error == (
            "python -m selkern study selectivity: alpha=2, seed 0: ArithmeticError: "
            "the loss is nan in epoch 1\n"
        )
        assert {r["alpha"] for r in read_rows(tmp_path)} == {0.0}


def test_published_files_are_all_it_needs(run: Run, tmp_path: Path) -> None:
    clean, corrupted = tmp_path / "cifar", tmp_path / "corrupted"
    labels = write_cifar10(clean, images=10)["test_batch"]["labels"]
    write_cifar10_c(corrupted, ("fog", "frost"), images=10)
    np.save(corrupted / "labels.npy", np.tile(np.array(labels, np.uint8), 5))
    folders = ["--data", str(clean), "--corrupted", str(corrupted), "--preset", "small"]
    output = ["--output", str(tmp_path / "study")]
    assert run(*folders, *output, "--alphas", "0", "--epochs", "1") == 0
    rows = read_rows(tmp_path / "study")
    of_corruptions = [r for r in rows if r["perturbation"] in ("fog", "frost")]
    assert [(r["perturbation"], r["strength"]) for r in of_corruptions] == [
        (name, severity) for name in ("frost", "fog") for severity in (1, 2, 3, 4, 5)
    ]
    assert all(set(r["dimensionality"]) == set(RELUS) for r in of_corruptions)
    about = (tmp_path / "study" / "report.md").read_text()
    assert "Images: cifar, 3 x 32 x 32, 10 classes; 30 to train on, 20 to choose" in about
    assert str(tmp_path) not in about


class TestPublishedCorruptions:
    class Sets:
        names = ("fog",)
        severities = (1, 2)
        classes = tuple("0123")

        def __init__(self, is_paired: bool, shift: int = 0) -> None:
            self.is_paired = is_paired
            self.shift = shift

        def load(self, name: str, severity: int) -> data.ImageSet:
            images, labels = splits().test.tensors()
            darker = (255 * images / severity).round().to(torch.uint8).permute(0, 2, 3, 1)
            return data.ImageSet(darker, labels.roll(self.shift), classes=self.classes)

    def study(self) -> SelectivityStudy:
        preset = replace(choose("small", (1, 8, 8)), evaluation_batch=7)
        return SelectivityStudy("digits", preset, (0,), CPU, corrupted="somewhere")

    def rows(self, sets: Sets, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
        monkeypatch.setattr(data, "load_corrupted", lambda folder: sets)
        model = DigitsNet(4).eval()
        layers = layers_of_kind(model, nn.ReLU)
        return list(self.study()._measurements("corruptions", model, layers, 0))

    @pytest.mark.usefixtures("_tiny")
    def test_are_paired_with_the_test_images(self, monkeypatch: pytest.MonkeyPatch) -> None:
        same, darker = self.rows(self.Sets(is_paired=True), monkeypatch)
        assert (same["perturbation"], same["strength"], darker["strength"]) == ("fog", 1, 2)
        # The images of severity 1 are the test images themselves.
        assert {value for layer in same["dimensionality"].values() for value in layer} == {0.0}
        assert all(value > 0 for layer in darker["dimensionality"].values() for value in layer)

    @pytest.mark.usefixtures("_tiny")
    def test_that_do_not_pair_give_accuracy_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rows = self.rows(self.Sets(is_paired=False, shift=1), monkeypatch)
        assert [set(r) for r in rows] == 2 * [{"perturbation", "strength", "accuracy"}]

    @pytest.mark.usefixtures("_tiny")
    def test_of_other_images_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(ValueError, match="somewhere must hold the test images in their order"):
            self.rows(self.Sets(is_paired=True, shift=1), monkeypatch)

    @pytest.mark.usefixtures("_tiny")
    @pytest.mark.parametrize(
        ("is_paired", "message"),
        [
            (True, "30 test images in their order, and its 30 images of fog have other labels"),
            (False, r"the classes of the test images, 0, 1, 2, ... \(4\), got a, b, c, ... \(4\)"),
        ],
    )
    def test_are_checked_before_anything_is_trained(
        self, is_paired: bool, message: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sets = self.Sets(is_paired)
        monkeypatch.setattr(data, "load_corrupted", lambda folder: sets)
        self.study().check()
        sets.shift, sets.classes = 1, tuple("abcd")
        with pytest.raises(ValueError, match=message):
            self.study().check()
        sets.classes = self.Sets.classes
        monkeypatch.setattr(sets, "load", lambda *_: stripes(30, size=12))
        with pytest.raises(ValueError, match=r"\(1, 8, 8\), got \(1, 12, 12\)"):
            self.study().check()
