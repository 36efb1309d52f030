"""The spectrum study: its arithmetic, and one tiny run of the command."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
from selkern.study.findings import AGREES, CANNOT_BE_TOLD, DISAGREES
from selkern.study.folder import Folder
from selkern.study.spectrum import presets
from selkern.study.spectrum import study as study_module
from selkern.study.spectrum.cli import main
from selkern.study.spectrum.figures import mean_spectrum
from selkern.study.spectrum.findings import make_findings
from selkern.study.spectrum.networks import (
    Architecture,
    make_network,
)
from selkern.study.spectrum.presets import NetworkPlan, Preset, choose
from selkern.study.spectrum.report import remarks_on_masking
from selkern.study.spectrum.study import SpectrumStudy, exponent
from selkern.study.spectrum.summary import (
    Network,
    area,
    differences,
    stronger_fgsm,
    summarise,
)
from selkern.study.statistics import remark_on_intervals
from selkern.study.training import Recipe, Trainer

DIGITS, MNIST, CIFAR = (1, 8, 8), (1, 28, 28), (3, 32, 32)


# ------------------------------------------------------------------------------- arithmetic


def test_the_area_under_a_curve_is_its_mean_by_trapezoids():
    assert area({0.0: 1.0, 0.1: 0.5, 0.3: 0.1}) == pytest.approx((0.1 * 0.75 + 0.2 * 0.3) / 0.3)


def test_exponents_are_fitted_where_there_are_two_ranks_that_are_not_0():
    law = [float(n) ** -1.5 for n in range(1, 41)]
    assert exponent(law, 12, 1000) == pytest.approx(1.5)
    assert exponent(law, 12, 30) == pytest.approx(1.5)
    assert exponent(law[:12], 12, 1000) is None
    assert exponent([*law[:12], 0.0, 0.0], 12, 1000) is None


def network(regularizer: str, seed: int, accuracies: Sequence[float], **curves) -> Network:
    """A network with these accuracies at eps 0, 0.1 and 0.2 under every perturbation."""
    curve = dict(zip((0.0, 0.1, 0.2), accuracies))
    found = {name: curves.get(name, curve) for name in ("FGSM", "PGD", "gaussian noise")}
    fallen = 1.1 if regularizer.startswith("all") else 2.0
    layers = {"hidden1": {"exponent": fallen}, "hidden2": {"exponent": fallen}}
    return Network("mlp", regularizer, seed, accuracies[0], found, layers)


def test_differences_are_between_networks_of_the_same_seed():
    networks = [
        *(network("none", seed, (1.0, 0.5, 0.125 * seed)) for seed in range(4)),
        *(network("all layers", seed, (1.0, 0.5, 0.125 * seed + 0.5)) for seed in range(1, 6)),
    ]
    # The last one of three radii counts for a quarter of the area.
    found = differences(networks, "mlp", "all layers", "none", lambda n: n.pgd)
    assert (found.mean, found.count) == (pytest.approx(0.125), 3)


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ((0.04, 0.05, 0.06, 0.04, 0.03), AGREES),
        ((-0.04, -0.05, -0.06, -0.04, -0.03), DISAGREES),
        ((0.04, -0.05, 0.06, -0.04, 0.03), CANNOT_BE_TOLD),
        ((0.04, 0.05), CANNOT_BE_TOLD),
    ],
)
def test_a_finding_is_judged_by_the_interval_over_seeds(gains, verdict):
    networks = [
        made
        for seed, gain in enumerate(gains)
        for made in (
            network("none", seed, (0.9, 0.5, 0.1)),
            network("all layers", seed, (0.9, 0.5 + gain, 0.1)),
        )
    ]
    judged = {f.measure.split(": ")[1]: f for f in make_findings(networks) if "PGD" in f.measure}
    against_none = judged["all layers minus none, percentage points"]
    assert against_none.verdict == verdict
    # A gain at the middle one of three radii counts for half of the area.
    assert against_none.value.mean == pytest.approx(100 * sum(gains) / len(gains) / 2)
    against_last = judged["all layers minus last layer, percentage points"]
    assert against_last.verdict == CANNOT_BE_TOLD
    assert against_last.reason == "there is no network with 'last layer'"


def test_without_a_spectrum_near_1_over_n_nothing_is_told():
    networks = [
        network(name, seed, (0.9, gain, 0.1))
        for seed in range(5)
        for name, gain in (("none", 0.5), ("all layers", 0.6))
    ]
    near = make_findings(networks)[0]
    assert near.verdict == AGREES
    far = [
        replace(n, layers={**n.layers, "hidden2": {"exponent": exponent}})
        if n.regularizer == "all layers"
        else n
        for n, exponent in zip(networks, 5 * [1.0, 1.6], strict=True)
    ]
    finding = make_findings(far)[0]
    assert finding.value == near.value
    assert finding.verdict == CANNOT_BE_TOLD
    assert finding.reason == (
        "the spectrum did not come near 1/n in hidden2 (1.60, without the penalty 2.00)"
    )


def test_networks_that_did_not_learn_tell_nothing():
    networks = [
        network(name, seed, (0.2 if (name, seed) == ("none", 3) else 0.9, gain, 0.1))
        for seed in range(5)
        for name, gain in (("none", 0.1), ("all layers", 0.2))
    ]
    finding = make_findings(networks)[0]
    assert finding.reason == "1 of 10 networks have an accuracy below 25%"
    assert finding.verdict == CANNOT_BE_TOLD


def test_every_difference_is_of_the_two_regularizers_that_its_finding_names():
    """All 20 differences between two of five regularizers are different numbers."""
    accuracies = {
        "none": 0.35,
        "last layer": 0.65,
        "last layer, frozen": 0.40,
        "all layers": 0.47,
        "all layers, frozen": 0.80,
    }
    flat = {
        name: {"FGSM": dict.fromkeys((0.0, 0.1), value), "PGD": dict.fromkeys((0.0, 0.1), value**2)}
        for name, value in accuracies.items()
    }
    networks = [
        network(name, seed, (value, value, value), **flat[name])
        for seed in range(5)
        for name, value in accuracies.items()
    ]
    findings = {
        finding.measure.removesuffix(", percentage points").split("radii of ")[1]: finding
        for finding in make_findings(networks)
    }
    verdicts = {
        ("all layers", "none"): AGREES,
        ("all layers, frozen", "none"): AGREES,
        ("all layers", "last layer"): DISAGREES,
        ("all layers, frozen", "last layer, frozen"): AGREES,
    }
    assert findings.keys() == {
        f"{attack}: {of} minus {base}" for attack in ("FGSM", "PGD") for of, base in verdicts
    }
    for (of, base), verdict in verdicts.items():
        for attack, power in (("FGSM", 1), ("PGD", 2)):
            finding = findings[f"{attack}: {of} minus {base}"]
            expected = 100 * (accuracies[of] ** power - accuracies[base] ** power)
            assert finding.value.mean == pytest.approx(expected)
            assert finding.verdict == verdict


def test_a_gain_against_fgsm_that_pgd_does_not_confirm_is_remarked_on():
    better = {0.0: 0.9, 0.1: 0.8, 0.2: 0.4}
    networks = [
        made
        for seed in range(5)
        for made in (
            network("none", seed, (0.9, 0.5, 0.1)),
            network("all layers", seed, (0.9, 0.5, 0.1), FGSM=better),
            network("all layers, frozen", seed, (0.9, 0.5, 0.1), FGSM=better, PGD=better),
        )
    ]
    [remark] = remarks_on_masking(make_findings(networks))
    assert "PGD: mlp, all layers minus none. A gain" in remark
    assert (
        remarks_on_masking(make_findings([n for n in networks if "frozen" in n.regularizer])) == []
    )


def test_every_finding_is_told_for_both_attacks_and_both_ways_to_take_eigenvalues():
    measures = [finding.measure for finding in make_findings([network("none", 0, (1, 1, 1))])]
    assert len(measures) == len(set(measures)) == 8
    assert sum("PGD" in measure for measure in measures) == 4
    assert sum("frozen" in measure for measure in measures) == 4


def test_networks_that_a_single_step_fools_more_are_counted():
    networks = [
        network("none", 0, (0.9, 0.5, 0.2)),
        network("none", 1, (0.9, 0.5, 0.2), FGSM={0.0: 0.9, 0.1: 0.4, 0.2: 0.1}),
        network("none", 2, (0.9, 0.5, 0.2), PGD={0.0: 0.9, 0.1: 0.2, 0.2: 0.1}),
        network("none", 3, (0.9, 0.5, 0.2), PGD={0.0: 0.9, 0.1: 0.3, 0.2: 0.0}),
    ]
    assert stronger_fgsm(networks) == (1, 4, pytest.approx(0.1))


def test_mean_spectra_are_geometric_and_end_where_a_network_has_no_variance():
    spectra = ([4.0, 2.0, 1.0, 0.5], [9.0, 1.0, 4.0, 0.0])
    networks = [
        Network("mlp", "none", seed, 1.0, {}, {"hidden1": {"spectrum": spectrum}})
        for seed, spectrum in enumerate(spectra)
    ]
    assert mean_spectrum(networks, "hidden1", 2) == pytest.approx([18**0.5, 1.0, 2**0.5])
    assert len(mean_spectrum(networks, "hidden1", 4)) == 0


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
    printed = json.loads(capsys.readouterr().out)
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
