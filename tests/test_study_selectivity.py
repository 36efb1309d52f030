"""``python -m selkern study selectivity``: its networks and its arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from study_cases import CPU, splits

pytest.importorskip("kornia")
pytest.importorskip("matplotlib")
pytest.importorskip("scipy")

from torch import nn

import selkern
from selkern._outputs import LayerOutputs, layers_of_kind
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

    def test_networks_that_did_not_learn_tell_nothing(self) -> None:
        nets = [
            replace(n, clean=0.2) if (n.alpha, n.seed) == (2.0, 1) else n
            for n in networks(as_the_paper)
        ]
        findings = make_findings(nets, 10)
        assert findings[0].reason == "1 of 18 networks have an accuracy below 25%"
        by_strength = {f.measure: f.verdict for f in findings if "at alpha = " in f.measure}
        for measure, verdict in by_strength.items():
            assert (verdict == AGREES) is ("+2" not in measure)

    def test_strengths_that_did_not_move_selectivity_tell_nothing(self) -> None:
        nets = [
            replace(n, selectivity=0.3 + 1e-3 * (n.seed - 2.5) * n.alpha)
            for n in networks(as_the_paper)
        ]
        differences_ = [f for f in make_findings(nets, 10)[:9] if "at alpha" in f.measure]
        assert len(differences_) == 6
        assert all("SI did not measurably rise with alpha" in f.reason for f in differences_)

    def test_what_no_strength_reached_is_left_open(self) -> None:
        nets = [replace(n, selectivity=0.3 + 0.05 * n.alpha) for n in networks(as_the_paper)]
        *_, fall, to_zero, _ = make_findings(nets, 10)
        assert fall.value.high < 2.5
        assert fall.reason == to_zero.reason == "no alpha that was tried lowers it so far"
        assert (fall.verdict, to_zero.verdict) == (CANNOT_BE_TOLD, CANNOT_BE_TOLD)

    def test_few_seeds_tell_nothing(self) -> None:
        nets = networks(as_the_paper, seeds=LEAST_VALUES - 1)
        assert {f.verdict for f in make_findings(nets, 10)} == {CANNOT_BE_TOLD}

    def test_without_a_strength_it_says_so(self) -> None:
        nets = [n for n in networks(as_the_paper) if n.alpha != 2.0]
        reasons = {finding.reason for finding in make_findings(nets, 10)}
        assert "there are no networks at alpha = 0 and +2" in reasons

    @pytest.mark.parametrize(
        ("lowest", "cost", "verdict"),
        [(0.05, 0.0, AGREES), (0.25, 0.0, CANNOT_BE_TOLD), (0.05, 0.05, CANNOT_BE_TOLD)],
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
        assert "can a cost of 1 percentage points or more be excluded" in fall.reason
        assert "can a cost of 3 percentage points or more be excluded" in to_zero.reason

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
        # A lower one was tried, and costs more.
        assert fall.verdict == DISAGREES
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
