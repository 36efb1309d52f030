"""The spectrum study: its networks, objectives and arithmetic, and one tiny run of the command."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import selkern
from selkern._outputs import LayerOutputs
from selkern.data import ImageSet, Splits
from selkern.study import images as study_images
from selkern.study.base import Cell
from selkern.study.findings import AGREES, CANNOT_BE_TOLD, DISAGREES
from selkern.study.folder import Folder
from selkern.study.spectrum import presets
from selkern.study.spectrum.cli import main
from selkern.study.spectrum.figures import mean_spectrum
from selkern.study.spectrum.findings import make_findings
from selkern.study.spectrum.networks import (
    Architecture,
    Normalization,
    Whitening,
    hidden_layers,
    hidden_widths,
    make_network,
)
from selkern.study.spectrum.objectives import (
    JacobianObjective,
    make_objective,
    projected_jacobian,
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
from selkern.study.training import Recipe, Trainer

DIGITS, MNIST, CIFAR = (1, 8, 8), (1, 28, 28), (3, 32, 32)


def random_images(count: int, seed: int) -> ImageSet:
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    # Brighter in one third of the rows, by class, so that there is something to learn.
    pixels = generator.integers(0, 120, (count, 6, 6))
    for row, label in zip(pixels, labels):
        row[2 * label : 2 * label + 2] += 100
    return ImageSet(pixels.astype(np.uint8), labels)


# --------------------------------------------------------------------------------- networks


@pytest.mark.parametrize(
    ("preset", "shape", "network", "widths"),
    [
        ("paper", MNIST, "mlp", (1000, 1000, 1000)),
        ("paper", MNIST, "cnn", (2704, 800, 1000)),
        ("paper", MNIST, "shallow", (2000,)),
        ("paper", CIFAR, "cnn", (3600, 1152, 256, 256, 256)),
        ("small", DIGITS, "mlp", (128, 128, 128)),
        ("small", DIGITS, "cnn", (128, 64, 128)),
    ],
)
def test_the_hidden_layers_have_the_widths_of_the_preset(preset, shape, network, widths):
    architecture = choose(preset, shape).networks[network].architecture
    model = make_network(architecture, shape, 10)
    with LayerOutputs(hidden_layers(model)) as outputs, torch.no_grad():
        logits = model(torch.rand(2, *shape))
    assert hidden_widths(architecture, shape) == widths
    assert tuple(x.flatten(1).shape[1] for x in outputs.maps.values()) == widths
    assert list(outputs.maps) == [f"hidden{n}" for n in range(1, len(widths) + 1)]
    assert logits.shape == (2, 10)


def test_batch_norm_is_in_the_single_hidden_layer_of_the_paper_alone():
    networks = choose("paper", MNIST).networks
    assert [name for name, plan in networks.items() if plan.architecture.batch_norm] == ["shallow"]
    model = make_network(networks["shallow"].architecture, MNIST, 10)
    assert any(isinstance(layer, nn.BatchNorm1d) for layer in model.modules())


def test_normalization_brings_the_training_images_to_mean_0_and_deviation_1():
    pixels = np.random.default_rng(0).integers(0, 256, (1100, 2, 3, 2), dtype=np.uint8)
    pixels[..., 1] = 51
    images = ImageSet(pixels, np.zeros(1100, dtype=np.int64))
    normalization = Normalization(2)
    normalization.fit(images)
    varying, constant = normalization(images.tensors()[0]).double().unbind(1)
    assert float(varying.mean()) == pytest.approx(0, abs=1e-6)
    assert float(varying.std(correction=0)) == pytest.approx(1, abs=1e-6)
    assert float(constant.abs().max()) == pytest.approx(0, abs=1e-6)


def test_a_whitened_batch_has_mean_0_and_the_identity_as_covariance():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(6, 6, generator=generator)
    x = (torch.randn(200, 6, generator=generator) @ mixing + 3).reshape(200, 3, 2)
    white = Whitening(6)(x)
    assert white.shape == x.shape
    rows = white.flatten(1)
    torch.testing.assert_close(rows.mean(0), torch.zeros(6), atol=1e-4, rtol=0)
    torch.testing.assert_close(rows.T.cov(), torch.eye(6), atol=2e-3, rtol=0)


def test_whitening_takes_running_averages_in_eval_mode():
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) * 2 + 1
    whitening = Whitening(4)
    for _ in range(150):
        trained = whitening(x)
    whitening.eval()
    torch.testing.assert_close(whitening(x), trained, atol=1e-4, rtol=1e-4)
    before = whitening.covariance.clone()
    one = whitening(x[:1])
    torch.testing.assert_close(one, trained[:1], atol=1e-4, rtol=1e-4)
    assert torch.equal(whitening.covariance, before)


# ------------------------------------------------------------------------------- objectives


@pytest.mark.parametrize(
    ("regularizer", "layers"),
    [("last layer", ["hidden2"]), ("all layers", ["hidden1", "hidden2"])],
)
@pytest.mark.parametrize("frozen", [False, True])
def test_the_penalty_is_summed_over_the_layers_that_are_regularized(regularizer, layers, frozen):
    torch.manual_seed(0)
    data = random_images(40, seed=0)
    model = make_network(Architecture((15, 20)), data.image_shape, 3)
    name = f"{regularizer}, frozen" if frozen else regularizer
    objective = make_objective(name, model, beta=0.5, jacobian=0.0)
    objective.begin_epoch(data, torch.Generator())
    images, labels = data[:30]
    with LayerOutputs(hidden_layers(model)) as outputs:
        loss = objective(images, labels)
        expected = F.cross_entropy(model(images), labels)
    for layer in layers:
        basis = objective.penalty.bases[layer] if frozen else None
        expected = expected + 0.5 * selkern.spectral_loss([outputs.maps[layer]], basis=[basis])
    torch.testing.assert_close(loss, expected)


def test_the_projected_jacobian_is_exact_for_one_logit():
    weight = torch.tensor([[1.0, -2.0, 3.0]], requires_grad=True)
    images = torch.rand(4, 3).requires_grad_()
    value = projected_jacobian(images, images @ weight.T, torch.Generator().manual_seed(0))
    assert float(value.detach()) == pytest.approx((1 + 4 + 9) / 2)
    (gradient,) = torch.autograd.grad(value, weight)
    torch.testing.assert_close(gradient, weight.detach())


def test_the_projected_jacobian_is_half_the_squared_norm_in_expectation():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(5, 7, generator=generator)
    images = torch.rand(20_000, 7, generator=generator).requires_grad_()
    value = projected_jacobian(images, images @ weight.T, generator)
    assert float(value) == pytest.approx(float(weight.square().sum()) / 2, rel=0.01)


class Killed(Exception):
    pass


def test_jacobian_training_that_was_killed_gives_the_same_network(tmp_path):
    data = random_images(24, seed=0)

    def train(folder: Folder, kill_at: int | None = None) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        model = make_network(Architecture((12,)), data.image_shape, 3)
        recipe = Recipe(epochs=4, batch_size=8, learning_rate=0.01, optimizer="adam")
        objective = JacobianObjective(model, 0.5)
        trainer = Trainer(model, objective, recipe, seed=0, device=torch.device("cpu"))

        def tick(steps: int) -> None:
            if trainer.epoch == kill_at:
                raise Killed

        times = iter(range(0, 1_000_000, 1000))
        trainer.run(data, None, folder, Cell("Jacobian", 0), tick, clock=lambda: next(times))
        return model.state_dict()

    expected = train(Folder(tmp_path / "whole"))
    with pytest.raises(Killed):
        train(Folder(tmp_path / "killed"), kill_at=2)
    found = train(Folder(tmp_path / "killed"))
    assert all(torch.equal(found[name], value) for name, value in expected.items())


# ---------------------------------------------------------------------------------- presets


@pytest.mark.parametrize(
    ("shape", "network", "batch", "rate", "epochs"),
    [
        (MNIST, "mlp", 1500, 1e-4, 100),
        (MNIST, "cnn", 6000, 1e-4, 100),
        (MNIST, "shallow", 3500, 1e-3, 50),
        (CIFAR, "cnn", 10_000, 1e-3, 100),
    ],
)
def test_the_paper_preset_trains_as_the_paper_did(shape, network, batch, rate, epochs):
    preset = choose("paper", shape)
    recipe = preset.recipe(network, is_jacobian=False)
    assert (recipe.batch_size, recipe.learning_rate, recipe.epochs) == (batch, rate, epochs)
    assert recipe.optimizer == "adam"
    assert preset.recipe(network, is_jacobian=True).batch_size == 100
    assert (preset.jacobian, preset.seeds, preset.networks[network].beta) == (0.01, 3, 2)


def test_the_paper_had_no_images_of_other_shapes():
    with pytest.raises(ValueError, match=r"got images 1 x 8 x 8: use --preset small"):
        choose("paper", DIGITS)


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
    layers = {"hidden1": {}, "hidden2": {}}
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
    stronger = {0.0: 0.9, 0.1: 0.4, 0.2: 0.1}
    networks = [
        network("none", 0, (0.9, 0.5, 0.2)),
        network("none", 1, (0.9, 0.5, 0.2), FGSM=stronger),
        network("none", 2, (0.9, 0.5, 0.2), PGD=stronger),
    ]
    assert stronger_fgsm(networks) == (1, 3, pytest.approx(0.1))


def test_mean_spectra_are_geometric_and_end_where_a_network_has_no_variance():
    spectra = ([4.0, 2.0, 1.0, 0.5], [9.0, 1.0, 4.0, 0.0])
    networks = [
        Network("mlp", "none", seed, 1.0, {}, {"hidden1": {"spectrum": spectrum}})
        for seed, spectrum in enumerate(spectra)
    ]
    assert mean_spectrum(networks, "hidden1", 2) == pytest.approx([18**0.5, 1.0, 2**0.5])
    assert len(mean_spectrum(networks, "hidden1", 4)) == 0


# ------------------------------------------------------------------------------ the command

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
