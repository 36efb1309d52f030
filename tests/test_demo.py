"""``python -m selkern demo``: which demo runs, and the one with the selectivity regularizer."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("selkern._benchmarks")
pytest.importorskip("matplotlib")
pytest.importorskip("skimage")
pytest.importorskip("sklearn")

from selkern._benchmarks import measure
from torch import nn

import selkern
from selkern.__main__ import main
from selkern.demo.agreement import LossesDisagree
from selkern.demo.cli import DEMOS
from selkern.demo.data import Digits, load_digits
from selkern.demo.selectivity import cli
from selkern.demo.selectivity.timing import STEPS
from selkern.demo.selectivity.train import Recipe, make_optimizer, train
from selkern.demo.training import train_step
from selkern.study.selectivity.networks import DigitsNet

COMMON = {"--epochs", "--output", "--quick", "--threads"}


@pytest.fixture(scope="module")
def digits() -> Digits:
    return load_digits()


def shown_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        main(["demo", *arguments, "--help"])
    assert end.value.code == 0
    return " ".join(capsys.readouterr().out.split())


class TestChoice:
    @pytest.mark.parametrize(
        ("arguments", "demo"),
        [
            ([], "selectivity"),
            (["--quick"], "selectivity"),
            (["selectivity", "--quick"], "selectivity"),
            (["spectrum", "--quick"], "spectrum"),
        ],
    )
    def test_the_name_chooses_the_demo(
        self, arguments: list[str], demo: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        received: list[Any] = []
        for name in DEMOS:
            stub = SimpleNamespace(main=lambda rest, name=name: received.append((name, rest)) or 0)
            monkeypatch.setitem(sys.modules, f"selkern.demo.{name}.cli", stub)
        assert main(["demo", *arguments]) == 0
        assert received == [(demo, [a for a in arguments if a.startswith("-")])]

    def test_an_unknown_demo_is_refused(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            main(["demo", "dimensionality"])
        assert "choose from" in capsys.readouterr().err

    def test_a_name_behind_an_option_is_refused_in_one_line(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as end:
            main(["demo", "--quick", "spectrum"])
        assert end.value.code == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "before its options: `python -m selkern demo spectrum ...`" in error

    @pytest.mark.parametrize("arguments", [["--fast"], ["spectrum", "patches"]])
    def test_what_no_demo_knows_is_refused(
        self, arguments: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as end:
            main(["demo", *arguments])
        assert end.value.code == 2
        assert f"unrecognized arguments: {arguments[-1]}" in capsys.readouterr().err


class TestHelp:
    def test_lists_every_demo(self, capsys: pytest.CaptureFixture[str]) -> None:
        shown = shown_help([], capsys)
        for name, summary in DEMOS.items():
            assert f"{name} {summary}" in shown
        assert "`python -m selkern demo spectrum --help`" in shown

    def test_demos_have_the_same_options_and_folders_of_their_own(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        texts = [shown_help([name], capsys) for name in DEMOS]
        assert all(option in text for text in texts for option in COMMON)
        folders = [text.partition("folder for the results")[2].split()[1] for text in texts]
        assert len(set(folders)) == len(DEMOS)


def test_a_source_folder_that_is_not_installed_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = "selkern._benchmarks"
    monkeypatch.setattr("selkern.__main__.is_installed", lambda name: name != missing)
    for command in ("demo", "bench"):
        assert main([command]) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"python -m selkern {command} needs selkern to be installed")
        assert error.count("\n") == 1


class TestTraining:
    def test_compares_the_losses_on_the_way(self, digits: Digits) -> None:
        trained = train(-2.0, digits.train, Recipe(epochs=1, compare_every=4))
        assert trained.comparisons == 3
        assert trained.largest_difference < 1e-5
        assert not any(module._forward_hooks for module in trained.model.modules())

    def test_losses_that_differ_are_refused(
        self, digits: Digits, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(selkern.reference, "mean_selectivity", lambda *_: torch.tensor(9.0))
        with pytest.raises(LossesDisagree, match=r"alpha = 2, step 0: .* expected at most 1e-05"):
            train(2.0, digits.train, Recipe(epochs=1))

    def test_a_step_descends_the_sum_of_both_terms(self, digits: Digits) -> None:
        model = DigitsNet(10)
        batch = next(digits.train.batches(32))
        before = [parameter.clone() for parameter in model.parameters()]

        def term() -> torch.Tensor:
            return 3 * model.classifier.weight.sum()

        terms = train_step(model, make_optimizer(model, Recipe(learning_rate=0.0)), batch, term)
        loss = nn.functional.cross_entropy(model(batch.images), batch.labels)
        torch.testing.assert_close(terms[0], loss.detach())
        torch.testing.assert_close(terms[1], term().detach())
        gradient = torch.autograd.grad(loss + term(), model.classifier.weight)[0]
        torch.testing.assert_close(model.classifier.weight.grad, gradient)
        assert all(map(torch.equal, before, model.parameters()))


@pytest.mark.usefixtures("restore_threads")
class TestCommand:
    def run(self, folder: Path, *arguments: str) -> int:
        options = ["--quick", "--epochs", "1", "--threads", "1", "--quiet"]
        return main(["demo", *options, "--output", str(folder), *arguments])

    def test_writes_tables_data_and_a_figure(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        status = self.run(tmp_path, "--no-benchmark")
        shown = capsys.readouterr().out
        data = json.loads((tmp_path / "demo.json").read_text())
        assert status == (0 if data["selectivity_rises_with_alpha"] else 1)
        assert [result["alpha"] for result in data["results"]] == [-2, 0, 2]
        for result in data["results"]:
            assert set(result["step_milliseconds"]) == set(STEPS)
            assert f"{result['test_accuracy']:.1%}" in shown
            assert f"{result['mean_selectivity_index']:.3f}" in shown
        assert (tmp_path / "selectivity.png").read_bytes().startswith(b"\x89PNG")
        assert not (tmp_path / "benchmark.json").exists()

    def test_prints_json_instead_and_puts_the_threads_back(
        self,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        nothing = measure.measure_all([])
        monkeypatch.setattr(cli, "measure_all", lambda names, **options: nothing)
        torch.set_num_threads(2)
        self.run(tmp_path, "--json")
        shown = capsys.readouterr()
        data = json.loads(shown.out)
        assert shown.err == ""
        assert data == json.loads((tmp_path / "demo.json").read_text())
        assert data["machine"]["threads"] == 1
        assert json.loads((tmp_path / "benchmark.json").read_text())["works"] == []
        assert torch.get_num_threads() == 2
