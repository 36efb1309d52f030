"""``python -m selkern study selectivity``: its arithmetic, and a tiny study from end to end."""

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
from selkern.study.findings import AGREES, CANNOT_BE_TOLD, DISAGREES
from selkern.study.selectivity import presets
from selkern.study.selectivity import study as selectivity_study
from selkern.study.selectivity.findings import make_findings
from selkern.study.selectivity.networks import DigitsNet
from selkern.study.selectivity.presets import choose
from selkern.study.selectivity.study import SelectivityStudy
from selkern.study.selectivity.summary import (
    Network,
    correlations,
    differences,
    over_seeds,
    slope_differences,
    summarise,
)
from selkern.study.statistics import LEAST_VALUES

ALPHAS = (-2.0, 0.0, 2.0)
RELUS = [f"relu{number}" for number in range(1, 6)]


@pytest.fixture(autouse=True)
def _one_thread(restore_threads: None) -> None:
    torch.set_num_threads(1)


class TestPresets:
    def test_the_papers_networks_and_schedules(self) -> None:
        cifar, tiny = choose("paper", (3, 32, 32)), choose("paper", (3, 64, 64))
        assert (cifar.network, tiny.network) == ("ResNet-20", "ResNet-18")
        assert (cifar.recipe.batch_size, tiny.recipe.batch_size) == (256, 4096)
        assert (cifar.recipe.epochs, tiny.recipe.epochs) == (200, 90)
        assert cifar.recipe.milestones == (100, 150)
        assert tiny.recipe.milestones == (35, 50, 65, 80)
        assert cifar.recipe.learning_rate == tiny.recipe.learning_rate == 0.1
        assert cifar.seeds == 20
        assert {-2, 0, 2, 0.1, -0.1, 100, -100} <= set(cifar.alphas)
        assert (cifar.validation, cifar.eps[-1]) == (5000, 16 / 255)

    def test_the_optimizer_is_the_papers(self) -> None:
        optimizer = choose("paper", (3, 32, 32)).recipe.make_optimizer(nn.Linear(1, 1))
        assert isinstance(optimizer, torch.optim.SGD)
        [group] = optimizer.param_groups
        assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.1, 0.9, 1e-4)

    def test_other_images_have_no_network_of_the_paper(self) -> None:
        with pytest.raises(ValueError, match="28 x 28: use --preset small"):
            choose("paper", (1, 28, 28))

    @pytest.mark.parametrize("name", presets.NETWORKS)
    @pytest.mark.parametrize("channels", [1, 3])
    def test_every_network_has_logits_and_relus(self, name: str, channels: int) -> None:
        model = presets.NETWORKS[name](7, channels=channels).eval()
        assert model(torch.rand(2, channels, 32, 32)).shape == (2, 7)
        assert len(layers_of_kind(model, nn.ReLU)) >= 5


def row(alpha: float, seed: int, perturbation: str, strength: float, **values: Any) -> Any:
    return {
        "network": f"alpha={alpha:g}",
        "alpha": alpha,
        "seed": seed,
        "perturbation": perturbation,
        "strength": strength,
        **values,
    }


def test_a_network_is_summarised_by_plain_means() -> None:
    dimensions = {"a": [0.1, 0.2, 0.3], "b": [0.3, 0.4, 0.5]}
    others = {"a": [0.5, 0.6, 0.7], "b": [0.5, 0.6, 0.7]}
    rows = [
        row(2.0, 3, "training", 0, epoch=1),
        row(2.0, 3, "none", 0, accuracy=0.9, selectivity={"a": 0.2, "b": 0.6}),
        row(2.0, 3, "fog", 1, accuracy=0.8, dimensionality=dimensions),
        row(2.0, 3, "fog", 2, accuracy=0.6, dimensionality=dimensions),
        row(2.0, 3, "contrast", 1, accuracy=0.1),
        row(2.0, 3, "FGSM", 0.1, accuracy=0.4, dimensionality=others),
        row(2.0, 3, "PGD", 0.1, accuracy=0.3, dimensionality=others),
        row(2.0, 3, "PGD", 0.2, accuracy=0.1, dimensionality=dimensions),
        row(2.0, 3, "PGD of steps of 0.0001", 10, accuracy=0.0, dimensionality=dimensions),
    ]
    [network] = summarise(rows)
    assert (network.alpha, network.seed) == (2.0, 3)
    assert network.selectivity == pytest.approx(0.4)
    assert network.clean == 0.9
    assert network.corrupted == pytest.approx((0.8 + 0.6 + 0.1) / 3)
    assert network.fgsm == pytest.approx(0.4)
    assert network.pgd == pytest.approx(0.2)
    assert network.corruption_dimensionality == pytest.approx((0.2, 0.3, 0.4))
    assert network.attack_dimensionality == pytest.approx((1.2 / 3, 1.5 / 3, 1.8 / 3))


def network(alpha: float, seed: int, **values: Any) -> Network:
    known = Network(alpha, seed, 0.3, 0.95, 0.7, 0.4, 0.3, (0.3, 0.4, 0.5), (0.2, 0.3, 0.4))
    return replace(known, **values)


def networks(make: Callable[[float, int], dict[str, Any]], seeds: int = 6) -> list[Network]:
    return [network(a, seed, **make(a, seed)) for a in ALPHAS for seed in range(seeds)]


class TestOverSeeds:
    def test_differences_pair_networks_of_a_seed(self) -> None:
        # Seeds differ by far more than strengths do.
        nets = networks(lambda alpha, seed: {"clean": 0.1 * seed + 0.01 * alpha})
        difference = differences(nets, 2.0, -2.0, lambda n: n.clean)
        assert difference.mean == pytest.approx(0.04)
        assert difference.high - difference.low < 1e-6
        assert over_seeds(nets, 0.0, lambda n: n.clean).mean == pytest.approx(0.25)

    def test_a_seed_without_a_partner_is_left_out(self) -> None:
        nets = [*networks(lambda alpha, seed: {"clean": alpha}), network(2.0, 99, clean=50)]
        assert differences(nets, 2.0, 0.0, lambda n: n.clean).mean == 2.0

    def test_correlations_are_within_a_seed(self) -> None:
        nets = networks(
            lambda alpha, seed: {"selectivity": 0.1 * alpha - seed, "pgd": 0.01 * alpha + seed}
        )
        result = correlations(nets, lambda n: n.selectivity, lambda n: n.pgd)
        assert (result.mean, result.count) == (pytest.approx(1.0), 6)

    def test_slopes_are_within_a_seed(self) -> None:
        nets = networks(
            lambda alpha, seed: {"selectivity": alpha, "pgd": 3 * alpha + seed, "fgsm": alpha}
        )
        result = slope_differences(nets, lambda n: n.selectivity, lambda n: n.pgd, lambda n: n.fgsm)
        assert result.mean == pytest.approx(2.0)


def as_the_paper(alpha: float, seed: int) -> dict[str, Any]:
    """What the paper found, with some noise between seeds."""
    noise = 1e-3 * ((7 * seed) % 5)
    return {
        "selectivity": {-2.0: 0.03, 0.0: 0.3, 2.0: 0.6}[alpha] + noise,
        "clean": 0.95,
        "corrupted": 0.7 - 0.05 * alpha + noise,
        "fgsm": 0.4 + 0.05 * alpha + noise,
        "pgd": 0.3 + 0.05 * alpha - noise,
        "corruption_dimensionality": (0.3 - 0.01 * alpha,) * 3,
        "attack_dimensionality": (0.3 - 0.1 * alpha,) * 3,
    }


class TestFindings:
    def test_what_the_paper_found_agrees(self) -> None:
        *told, of_tiny_imagenet = make_findings(networks(as_the_paper), num_classes=10)
        assert {finding.verdict for finding in told} == {AGREES}
        assert of_tiny_imagenet.verdict == CANNOT_BE_TOLD
        assert of_tiny_imagenet.reason == "not Tiny ImageNet"

    def test_the_opposite_disagrees(self) -> None:
        opposite = [replace(n, alpha=-n.alpha) for n in networks(as_the_paper)]
        swapped = [
            replace(n, selectivity=m.selectivity)
            for n in opposite
            for m in networks(as_the_paper)
            if (m.alpha, m.seed) == (n.alpha, n.seed)
        ]
        findings = make_findings(swapped, num_classes=10)[:12]
        assert {finding.verdict for finding in findings} == {DISAGREES}

    def test_few_seeds_tell_nothing(self) -> None:
        nets = networks(as_the_paper, seeds=LEAST_VALUES - 1)
        assert {f.verdict for f in make_findings(nets, 10)} == {CANNOT_BE_TOLD}

    def test_without_a_strength_it_says_so(self) -> None:
        nets = [n for n in networks(as_the_paper) if n.alpha != 2.0]
        reasons = {finding.reason for finding in make_findings(nets, 10)}
        assert "there is no alpha = 2" in reasons

    @pytest.mark.parametrize(
        ("lowest", "cost", "verdict"),
        [(0.05, 0.0, AGREES), (0.25, 0.0, DISAGREES), (0.05, 0.05, CANNOT_BE_TOLD)],
    )
    def test_the_fall_in_selectivity_at_no_cost(
        self, lowest: float, cost: float, verdict: str
    ) -> None:
        def make(alpha: float, seed: int) -> dict[str, Any]:
            noise = 1e-3 * ((7 * seed) % 5)
            if alpha < 0:
                return {"selectivity": lowest, "clean": 0.95 - cost + noise - 0.002}
            return {"selectivity": 0.3, "clean": 0.95}

        *_, fall, _, _ = make_findings(networks(make), 10)
        assert fall.verdict == verdict

    def test_no_cost_is_shown_and_not_merely_left_open(self) -> None:
        costs = (-0.3, 0.05, -0.02, 0.04, -0.01)
        nets = networks(lambda alpha, seed: {"clean": 0.9 + costs[seed] * (alpha < 0)}, seeds=5)
        *_, fall, to_zero, _ = make_findings(nets, 10)
        assert "a cost of 1 percentage points or more can be excluded" in fall.reason
        assert "a cost of 3 percentage points or more can be excluded" in to_zero.reason

    def test_the_lowest_alpha_whose_cost_is_small_counts(self) -> None:
        falls = {-10.0: 0.1, -5.0: 0.022, -2.0: 0.005, -1.0: 0.0, 0.0: 0.0}
        nets = [
            network(alpha, seed, clean=0.95 - fall, selectivity=0.3 + alpha / 20)
            for alpha, fall in falls.items()
            for seed in range(5)
        ]
        *_, fall, to_zero, _ = make_findings(nets, 10)
        assert "over that at -2, where accuracy changes by -0.50" in fall.measure
        assert fall.value.mean == pytest.approx(0.3 / 0.2)
        assert "SI at alpha = -5, where accuracy changes by -2.20" in to_zero.measure
        assert to_zero.value.mean == pytest.approx(0.05)

    def test_only_the_papers_main_strengths_are_correlated(self) -> None:
        beyond = [network(alpha, s, pgd=9.0) for alpha in (-5.0, 5.0) for s in range(6)]
        nets = networks(as_the_paper)
        assert make_findings([*nets, *beyond], 10)[:12] == make_findings(nets, 10)[:12]

    def test_dimensionality_is_that_of_95_percent(self) -> None:
        spoilt = [
            replace(
                n,
                corruption_dimensionality=(0.0, n.corruption_dimensionality[1], 9.0),
                attack_dimensionality=(0.0, n.attack_dimensionality[1], 9.0),
            )
            for n in networks(as_the_paper)
        ]
        assert make_findings(spoilt, 10) == make_findings(networks(as_the_paper), 10)

    def test_the_rise_in_accuracy_is_of_the_best_strength(self) -> None:
        nets = [
            *networks(lambda alpha, seed: {"clean": 0.5 + 0.04 * (alpha == -2) + 0.001 * seed}),
            *(network(-5.0, seed, clean=0.4) for seed in range(6)),
        ]
        *_, rise = make_findings(nets, num_classes=200)
        assert rise.verdict == AGREES
        assert rise.value.mean == pytest.approx(4.0)


class TestTraining:
    @pytest.mark.parametrize("alpha", [-3.0, 3.0])
    def test_the_loss_is_cross_entropy_minus_alpha_times_selectivity(self, alpha: float) -> None:
        images, labels = splits().train.tensors()
        model = DigitsNet(4)
        with selkern.SelectivityRegularizer(model, 4, alpha=alpha) as regularizer:
            loss = selectivity_study._Regularized(model, regularizer)(images, labels)
        with LayerOutputs(layers_of_kind(model, nn.ReLU)) as outputs:
            cross_entropy = nn.functional.cross_entropy(model(images), labels)
        index = selkern.mean_selectivity(list(outputs.maps.values()), labels, 4)
        torch.testing.assert_close(loss, cross_entropy - alpha * index, rtol=1e-4, atol=1e-5)


def test_attacks_are_of_every_radius_and_their_steps_of_two_and_a_half(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Any] = []
    monkeypatch.setattr(
        selectivity_study, "PGD", lambda model, *rest, **more: made.append((rest, more))
    )
    preset = replace(choose("small", (1, 8, 8)), eps=(0.1, 0.2), pgd_steps=5, swept_steps=(7,))
    study = SelectivityStudy("digits", preset, (0,), CPU)
    names = [(name, strength) for name, strength, _ in study._attacks(nn.Identity(), seed=11)]
    assert names == [
        ("FGSM", 0.1), ("PGD", 0.1), ("FGSM", 0.2), ("PGD", 0.2), ("PGD of steps of 0.0001", 7),
    ]  # fmt: skip
    *usual, swept = made
    for (rest, more), eps in zip(usual, (0.1, 0.2), strict=True):
        assert rest == pytest.approx((eps, eps / 2, 5))
        assert more["generator"].initial_seed() == 11
    assert swept == ((16 / 255, 1e-4, 7), {"random_start": False})


@pytest.mark.parametrize(
    ("alpha", "kind"), [(-2.0, "alpha=-2"), (-0.0, "alpha=0"), (0.12345678, "alpha=0.12345678")]
)
def test_every_strength_has_a_cell_of_its_own(alpha: float, kind: str) -> None:
    preset = replace(choose("small", (1, 8, 8)), alphas=(alpha,))
    study = SelectivityStudy("digits", preset, (3,), CPU)
    [cell] = study.cells()
    assert (cell.kind, cell.seed) == (kind, 3)
    assert study._alpha(cell) == alpha


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
        assert "holds results with recipe" in error
        assert "choose another folder" in error

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
