"""The spectrum study: its measurements, and one tiny run of the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from study_cases import random_images
from torch import nn

from selkern.attacks import PGD
from selkern.data import ImageSet, Splits
from selkern.study import images as study_images
from selkern.study.base import Cell
from selkern.study.folder import Folder
from selkern.study.spectrum import presets
from selkern.study.spectrum import study as study_module
from selkern.study.spectrum.cli import main
from selkern.study.spectrum.networks import (
    Architecture,
    make_network,
)
from selkern.study.spectrum.presets import NetworkPlan, Preset, choose
from selkern.study.spectrum.study import SpectrumStudy
from selkern.study.spectrum.summary import (
    summarise,
)
from selkern.study.statistics import remark_on_intervals
from selkern.study.training import Recipe, Trainer

DIGITS, MNIST, CIFAR = (1, 8, 8), (1, 28, 28), (3, 32, 32)


# ----------------------------------------------------------------------------- measurements

TINY = Preset(
    networks={
        "mlp": NetworkPlan(
            Architecture((20, 16)),
            Recipe(2, 24, 0.01, optimizer="adam", drops_last=True),
            beta=1.0,
        )
    },
    default_networks=("mlp",),
    seeds=3,
    eps=(0.1, 0.3),
    noise=(0.2,),
    pgd_steps=2,
)


@pytest.fixture
def tiny(monkeypatch):
    splits = Splits(random_images(50, seed=1), random_images(30, seed=2))
    monkeypatch.setattr(presets, "_SMALL", TINY)
    monkeypatch.setattr(study_images, "_load_images", lambda source: splits)
    study_images.load_study_images.cache_clear()
    yield splits
    study_images.load_study_images.cache_clear()


def tiny_study(preset: Preset = TINY) -> SpectrumStudy:
    return SpectrumStudy("digits", preset, ["mlp"], ["none"], [7], torch.device("cpu"))


def measured(study: SpectrumStudy, part: str, path: Path) -> list[dict]:
    """A part of what is measured on an untrained network of seed 7."""
    cell, folder = Cell("mlp/none", 7), Folder(path)
    torch.manual_seed(0)
    folder.save(
        cell.name, "network", make_network(Architecture((20, 16)), (1, 6, 6), 3).state_dict()
    )
    return study.measure(cell, part, folder, lambda steps: None)


def test_pgd_takes_steps_of_2_5_eps_over_their_number_from_a_start_of_the_seed(
    tiny, monkeypatch, tmp_path
):
    made = []

    class Recorded(PGD):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            made.append(self)

    monkeypatch.setattr(study_module, "PGD", Recorded)
    measured(tiny_study(replace(TINY, pgd_steps=4)), "attacks", tmp_path)
    assert [attack.eps for attack in made] == [0.1, 0.3]
    assert [attack.alpha for attack in made] == pytest.approx([0.0625, 0.1875])
    assert {(attack.steps, attack.random_start, attack.norm) for attack in made} == {
        (4, True, "linf")
    }
    assert {attack.generator.initial_seed() for attack in made} == {7}


def test_the_paper_presets_take_20_steps():
    assert {choose("paper", shape).pgd_steps for shape in (MNIST, CIFAR)} == {20}


def test_noise_is_of_the_seed_and_clipped_to_0_and_1(tiny, monkeypatch, tmp_path):
    noisy = []

    def keep(model, batches):
        noisy.append(torch.cat([images for images, _ in batches]))
        return 0.5

    monkeypatch.setattr(study_module, "accuracy", keep)
    rows = measured(tiny_study(replace(TINY, noise=(0.2, 0.6))), "noise", tmp_path)
    assert [(row["strength"], row["accuracy"]) for row in rows] == [(0.2, 0.5), (0.6, 0.5)]
    images, _ = tiny.test.tensors()
    generator = torch.Generator().manual_seed(7)
    for found, deviation in zip(noisy, (0.2, 0.6), strict=True):
        raw = images + deviation * torch.randn(images.shape, generator=generator)
        assert float(raw.min()) < 0
        assert float(raw.max()) > 1
        torch.testing.assert_close(found, raw.clamp(0, 1))


def test_exponents_are_fitted_from_rank_12_on_to_50_and_to_1000(tiny, monkeypatch, tmp_path):
    n = np.arange(1.0, 1201)
    law = np.where(n < 12, 9.0, np.where(n <= 50, 12 / n, 12 * 50 / n**2))
    law[1000:] = 1e-9
    monkeypatch.setattr(study_module, "spectra", lambda *_: {"hidden1": torch.from_numpy(law)})
    [row] = measured(tiny_study(), "clean", tmp_path)
    found = row["layers"]["hidden1"]
    assert found["exponent to rank 50"] == pytest.approx(1, abs=1e-4)
    fitted = slice(11, 1000)
    slope, _ = np.polyfit(np.log(n[fitted]), np.log(law[fitted]), 1, w=n[fitted] ** -0.5)
    assert found["exponent"] == pytest.approx(-slope, abs=1e-4)
    assert (found["width"], len(found["spectrum"])) == (1200, 1000)


def test_jacobian_regularization_trains_in_batches_of_its_own_size(tiny, monkeypatch, tmp_path):
    sizes = {}

    class Recorded(Trainer):
        def run(self, images, validation, folder, cell, tick):
            sizes[cell.kind] = self.recipe.batch_size
            return super().run(images, validation, folder, cell, tick)

    monkeypatch.setattr(study_module, "Trainer", Recorded)
    study = tiny_study(replace(TINY, jacobian_batch=10))
    for kind in ("mlp/none", "mlp/all layers", "mlp/Jacobian"):
        study.measure(Cell(kind, 0), "training", Folder(tmp_path), lambda steps: None)
    assert sizes == {"mlp/none": 24, "mlp/all layers": 24, "mlp/Jacobian": 10}


# ------------------------------------------------------------------------------ the command


def test_a_tiny_study_writes_what_it_measured(tiny, tmp_path, capsys):
    options = ["--output", str(tmp_path), "--processes", "1", "--threads", "1", "--json"]
    kinds = ["none", "all layers, frozen"]
    assert main([*options, "--regularizers", *kinds]) == 0
    shown = capsys.readouterr()
    assert shown.err.startswith("training 6 networks, each for 2 epochs\n")
    printed = json.loads(shown.out)
    assert printed == json.loads((tmp_path / "summary.json").read_text())
    assert {path.name for path in tmp_path.glob("*.*")} >= {
        "report.md",
        "results.jsonl",
        "robustness.png",
        "spectra.png",
        "study.json",
    }

    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert len(rows) == 3 * 2 * (1 + 1 + 2 * 2 + 1)
    [clean] = [
        row
        for row in rows
        if (row["network"], row["seed"], row["perturbation"]) == ("mlp/none", 1, "none")
    ]
    assert clean["accuracy"] == accuracy_by_hand(tmp_path, tiny.test)
    assert clean["layers"]["hidden2"]["spectrum"] == spectrum_by_hand(tmp_path, tiny.train)

    assert remark_on_intervals(3) in printed["remarks"]
    assert any("The paper trained 3 networks" in remark for remark in printed["remarks"])

    gains = []
    for seed in range(3):
        curves = {row["regularizer"]: {0.0: None} for row in rows if row["seed"] == seed}
        for row in rows:
            if row["seed"] == seed and row["perturbation"] in ("none", "FGSM"):
                curves[row["regularizer"]][float(row["strength"])] = row["accuracy"]
        means = [
            ((c[0.0] + c[0.1]) / 2 * 0.1 + (c[0.1] + c[0.3]) / 2 * 0.2) / 0.3
            for c in (curves["all layers, frozen"], curves["none"])
        ]
        gains.append(100 * (means[0] - means[1]))
    found = {finding["measure"]: finding["mean"] for finding in printed["findings"]}
    measure = "mlp, accuracy over the radii of FGSM: all layers, frozen minus none"
    assert found[f"{measure}, percentage points"] == pytest.approx(sum(gains) / 3)


def trained_by_hand(path: Path) -> nn.Module:
    model = make_network(Architecture((20, 16)), (1, 6, 6), 3)
    model.load_state_dict(Folder(path).load("mlp-none_seed=1", "network", torch.device("cpu")))
    return model.eval()


def accuracy_by_hand(path: Path, test: ImageSet) -> float:
    images, labels = test.tensors()
    return int((trained_by_hand(path)(images).argmax(1) == labels).sum()) / len(labels)


def spectrum_by_hand(path: Path, train: ImageSet) -> list[float]:
    model = trained_by_hand(path)
    x = model[:-2](train.tensors()[0]).detach().double().numpy()
    values = np.linalg.eigvalsh(np.cov(x.T))[::-1]
    return pytest.approx(values, rel=1e-4, abs=1e-9)


def test_a_single_test_image_is_refused_as_data(monkeypatch, tmp_path, capsys):
    splits = Splits(random_images(50, seed=1), random_images(1, seed=2))
    monkeypatch.setattr(study_images, "_load_images", lambda source: splits)
    study_images.load_study_images.cache_clear()
    with pytest.raises(SystemExit) as refused:
        main(["--output", str(tmp_path)])
    assert refused.value.code == 2
    assert "--data: there must be at least 2 test images" in capsys.readouterr().err


def test_the_last_layer_of_a_single_one_is_not_trained_twice():
    networks = {
        "deep": NetworkPlan(Architecture((20, 20)), TINY.networks["mlp"].recipe, 1.0),
        "shallow": NetworkPlan(Architecture((20,)), TINY.networks["mlp"].recipe, 1.0),
    }
    preset = Preset(networks, ("deep",), 1, (0.1,), (0.1,))
    study = SpectrumStudy(
        "digits", preset, list(networks), ["last layer", "all layers"], [0], torch.device("cpu")
    )
    assert [cell.kind for cell in study.cells()] == [
        "deep/last layer",
        "deep/all layers",
        "shallow/all layers",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--networks", "rnn"], "--networks: this preset has mlp, and no 'rnn'"),
        (["--regularizers", "dropout"], "invalid choice: 'dropout'"),
        (["--beta", "-1"], "--beta: must be a finite number from 0 on, got -1"),
        (["--preset", "paper"], "--preset: the paper's networks are for MNIST"),
    ],
)
def test_bad_options_are_refused_in_one_line(tiny, options, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as refused:
        main(["--output", str(tmp_path), *options])
    assert refused.value.code == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("architecture", "count", "message"),
    [
        (Architecture((20, 11)), 50, "mlp: every hidden layer must have more than 11 units"),
        (Architecture((20,)), 23, "mlp: there must be training images for a batch of 24, got 23"),
        (
            Architecture((20,), channels=(16,) * 3),
            50,
            "mlp: images of 6 x 6 are too small for 3 convolutions",
        ),
    ],
)
def test_networks_that_cannot_be_trained_are_refused(architecture, count, message):
    plan = NetworkPlan(architecture, TINY.networks["mlp"].recipe, 1.0)
    with pytest.raises(ValueError, match=message):
        Preset({"mlp": plan}, ("mlp",), 1, (0.1,), (0.1,)).check(["mlp"], (1, 6, 6), count)


def test_rows_are_summarised_by_network():
    kind = {"architecture": "cnn", "regularizer": "none", "seed": 4}
    rows = [
        {**kind, "perturbation": "training", "strength": 0, "loss": 0.1},
        {**kind, "perturbation": "none", "strength": 0, "accuracy": 0.9, "layers": {"hidden1": {}}},
        {**kind, "perturbation": "FGSM", "strength": 0.2, "accuracy": 0.5},
        {**kind, "perturbation": "PGD", "strength": 0.2, "accuracy": 0.3},
        {**kind, "perturbation": "gaussian noise", "strength": 0.1, "accuracy": 0.7},
    ]
    [found] = summarise(rows)
    assert (found.architecture, found.regularizer, found.seed) == ("cnn", "none", 4)
    assert (found.clean, found.fgsm, found.pgd, found.noise) == pytest.approx((0.9, 0.7, 0.6, 0.8))
