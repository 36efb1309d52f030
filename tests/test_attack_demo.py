"""``python -m selkern demo attack`` and the example it trains with."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("selkern._benchmarks")
pytest.importorskip("selkern._examples")
pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

from selkern._benchmarks.compare import Comparison
from selkern._examples import adversarial_training as example
from torch import Tensor, nn

from selkern.__main__ import main
from selkern.attacks import PGD
from selkern.demo.attack import steps as watching
from selkern.demo.attack.evaluate import EPS, Evaluation, evaluate_under_attack
from selkern.demo.attack.networks import KINDS, Kind, Recipe, load_digits, make_pgd, train
from selkern.demo.attack.report import Report, title
from selkern.demo.attack.steps import ATTACK, REST, STEP, Memory, Steps, watch_steps
from selkern.demo.data import Digits, Images

ROOT = Path(__file__).resolve().parents[1]
CLAIMS = {
    "memory_is_flat",
    "accuracy_falls_with_eps",
    "images_stay_in_the_ball",
    "attacks_in_training_help",
}
EXAMPLE = ROOT / "examples" / "adversarial_training.py"


@pytest.fixture(autouse=True)
def _one_thread(restore_threads: None) -> None:
    """The networks are too small to be worth a second one, which others may be using."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def digits() -> Digits:
    return load_digits()


def first(images: Images, count: int) -> Images:
    return Images(images.images[:count], images.labels[:count])


def unchanged(images: Tensor, labels: Tensor) -> Tensor:
    return images


class TestExample:
    def test_digits_are_images_within_the_bounds_of_the_attacks(self, digits: Digits) -> None:
        assert digits.train.images.shape == (1347, 1, 8, 8)
        assert digits.test.images.shape == (450, 1, 8, 8)
        for images in (digits.train, digits.test):
            assert (images.images.min(), images.images.max()) == (0, 1)
            assert images.labels.unique().tolist() == list(range(10))

    def test_trains_on_what_the_attack_returns(self, digits: Digits) -> None:
        images, labels = digits.train.images[:40], digits.train.labels[:40]
        model = example.make_model()
        trained_on: list[Tensor] = []
        model.register_forward_pre_hook(lambda module, inputs: trained_on.append(inputs[0]))
        example.train(model, images, labels, lambda x, y: x + y.view(-1, 1, 1, 1), alpha=0.0)
        assert len(trained_on) == 15
        expected = images + labels.view(-1, 1, 1, 1)
        for batch in trained_on:
            torch.testing.assert_close(
                batch.sum((1, 2, 3)).msort(), expected.sum((1, 2, 3)).msort()
            )

    def test_alpha_is_the_regularizers(self, digits: Digits) -> None:
        lowest, middle, highest = (
            evaluate_under_attack(train(kind, 0, digits.train, Recipe(epochs=2)), digits.test, 1, 0)
            for kind in (Kind(alpha, is_attacked=False) for alpha in (-2.0, 0.0, 2.0))
        )
        assert lowest.selectivity < middle.selectivity < highest.selectivity

    def test_leaves_the_model_without_the_regularizer(self, digits: Digits) -> None:
        model = train(Kind(2.0), 0, first(digits.train, 40), Recipe(epochs=1))
        assert not any(module._forward_pre_hooks for module in model.modules())
        assert [type(module) for module in model].count(nn.ReLU) == 3

    def test_accuracy_is_in_eval_mode_on_what_the_attack_returns(self, digits: Digits) -> None:
        class Brightness(nn.Module):
            def forward(self, images: Tensor) -> Tensor:
                assert not self.training
                return nn.functional.one_hot((images.amax((1, 2, 3)) == 1).long(), 2)

        dark, bright = torch.zeros(3, 1, 8, 8), torch.ones(3, 1, 8, 8)
        labels = torch.tensor([0, 0, 1])
        assert example.accuracy(Brightness(), dark, labels) == pytest.approx(2 / 3)
        assert example.accuracy(Brightness(), dark, labels, lambda x, y: bright) == pytest.approx(
            1 / 3
        )

    @pytest.mark.slow
    def test_runs_as_a_script(self) -> None:
        finished = subprocess.run(
            [sys.executable, EXAMPLE], capture_output=True, text=True, check=False, timeout=600
        )
        assert finished.returncode == 0, finished.stderr
        clean, attacked = map(float, re.findall(r"([\d.]+)%", finished.stdout))
        assert clean > 95
        assert 70 < attacked < clean


class TestNetworks:
    def test_the_seed_decides(self, digits: Digits) -> None:
        few = first(digits.train, 60)
        weights = [train(Kind(-2.0), seed, few, Recipe(epochs=1))[-1].weight for seed in (0, 0, 1)]
        assert torch.equal(weights[0], weights[1])
        assert not torch.equal(weights[0], weights[2])

    def test_only_the_attacked_kinds_see_adversarial_images(
        self, digits: Digits, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        attacked: list[Kind] = []
        for kind in KINDS:
            monkeypatch.setattr(
                "selkern.demo.attack.networks.make_pgd",
                lambda *_, kind=kind: attacked.append(kind) or unchanged,
            )
            train(kind, 0, first(digits.train, 20), Recipe(epochs=1))
        assert attacked == [Kind(-2.0), Kind(0.0), Kind(2.0)]


class Threshold(nn.Module):
    """Two classes by the first pixel, and a layer to measure."""

    def __init__(self, of: float) -> None:
        super().__init__()
        self.of = of
        self.relu = nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        pixel = self.relu(images[:, :, 0, 0])
        return torch.cat([self.of - pixel, pixel - self.of], 1)


class TestEvaluation:
    def test_an_attack_succeeds_where_its_radius_reaches(self) -> None:
        # None as far from the threshold as a radius.
        pixels = torch.linspace(0.513, 0.987, 24)
        images = Images(pixels.view(-1, 1, 1, 1).expand(-1, 1, 8, 8), torch.ones(24).long())
        result = evaluate_under_attack(Threshold(0.5), images, 20, seed=0)
        assert result.clean == 1
        for eps in EPS:
            expected = float((pixels - eps > 0.5).double().mean())
            assert result.pgd[eps] == result.fgsm[eps] == expected
        assert result.robustness == pytest.approx(np.mean([result.pgd[eps] for eps in EPS]))

    @pytest.mark.parametrize(("outside", "beyond"), [(0.0, 0.0), (0.25, 0.25), (-0.5, 0.5)])
    def test_sees_images_beyond_the_ball_or_the_bounds(
        self, outside: float, beyond: float, digits: Digits, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def escaping(self: PGD, images: Tensor, labels: Tensor) -> Tensor:
            adv = images.clone()
            adv[0, 0, 0, 0] = images[0, 0, 0, 0] + (outside and outside + np.sign(outside) * 0.3)
            return adv

        monkeypatch.setattr(PGD, "__call__", escaping)
        monkeypatch.setattr("selkern.demo.attack.evaluate.EPS", (0.3,))
        few = first(digits.test, 20)
        middle = Images(0.4 + 0.2 * few.images, few.labels)
        measured = evaluate_under_attack(example.make_model(), middle, 1, seed=0)
        # Downwards the bound is nearer than the ball.
        assert measured.beyond == pytest.approx(beyond, abs=1e-6)

    def test_images_of_the_real_attacks_stay_inside(self, digits: Digits) -> None:
        model = example.make_model()
        measured = evaluate_under_attack(model, first(digits.test, 50), 3, seed=0)
        assert measured.beyond <= 1e-6


class TestSteps:
    def test_the_attack_and_the_rest_make_the_step(self, digits: Digits) -> None:
        steps = watch_steps(first(digits.train, 64), Recipe(batch_size=16), steps=5)
        seconds = steps.times.seconds
        assert steps.count == 5
        np.testing.assert_allclose(seconds[ATTACK] + seconds[REST], seconds[STEP])
        assert (seconds[ATTACK] > 0).all()
        assert (seconds[REST] > 0).all()

    def test_memory_is_flat_unless_something_is_kept(
        self, digits: Digits, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        few, recipe = first(digits.train, 64), Recipe(batch_size=32)
        assert watch_steps(few, recipe, steps=20).memory_is_flat()
        kept: list[Tensor] = []

        def keeping(images: Tensor, labels: Tensor) -> Tensor:
            kept.append(images.clone())
            return images

        monkeypatch.setattr(watching, "make_pgd", lambda *_: keeping)
        steps = watch_steps(few, recipe, steps=20)
        assert steps.after.tensors - steps.before.tensors == 20
        assert not steps.memory_is_flat()

    def test_sees_memory_that_no_tensor_holds(
        self, digits: Digits, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kept: list[bytes] = []

        def keeping(images: Tensor, labels: Tensor) -> Tensor:
            kept.append(b"\1" * 2**20)
            return images

        monkeypatch.setattr(watching, "make_pgd", lambda *_: keeping)
        steps = watch_steps(first(digits.train, 64), Recipe(batch_size=32), steps=20)
        assert steps.growth_in_mib > 15
        assert not steps.memory_is_flat()


def evaluation(**values: Any) -> Evaluation:
    accuracies = dict(zip(EPS, (0.9, 0.8, 0.6, 0.3, 0.0)))
    known = Evaluation(0.98, accuracies, accuracies, 0.3, 0, 112, 0.0)
    return replace(known, **values)


def shifted(points: float, selectivity: float) -> Evaluation:
    accuracies = {eps: share + points / 100 for eps, share in evaluation().pgd.items()}
    return evaluation(pgd=accuracies, selectivity=selectivity)


def report_of(
    lowered: Sequence[float] = (0, 0, 0),
    raised: Sequence[float] = (0, 0, 0),
) -> Report:
    """A report of networks that are so many percentage points more robust than at alpha = 0."""
    results = {
        Kind(-2.0): [shifted(points, 0.1) for points in lowered],
        Kind(0.0): [evaluation() for _ in lowered],
        Kind(2.0): [shifted(points, 0.5) for points in raised],
        Kind(0.0, is_attacked=False): [shifted(-20, 0.3) for _ in lowered],
    }
    times = Comparison({ATTACK: np.full(9, 0.03), REST: np.full(9, 0.01), STEP: np.full(9, 0.04)})
    steps = Steps(Memory(400.0, 70), Memory(401.0, 70), times)
    return Report(results, steps, Recipe(networks=len(lowered)), 20, test_images=450)


class TestReport:
    def test_everything_is_shown_if_it_holds(self) -> None:
        assert report_of().shown() == dict.fromkeys(CLAIMS, True)
        assert "Not shown" not in report_of().conclusion()

    @pytest.mark.parametrize(
        ("claim", "spoilt"),
        [
            ("images_stay_in_the_ball", evaluation(beyond=2e-6)),
            ("images_stay_in_the_ball", evaluation(beyond=float("nan"))),
            ("accuracy_falls_with_eps", evaluation(clean=0.5)),
            ("accuracy_falls_with_eps", evaluation(clean=0.0, pgd=dict.fromkeys(EPS, 0.0))),
        ],
    )
    def test_one_network_can_spoil_a_claim(self, claim: str, spoilt: Evaluation) -> None:
        report = report_of()
        results = {**report.results, Kind(2.0): [spoilt] * 3}
        report = replace(report, results=results)
        assert [name for name, holds in report.shown().items() if not holds] == [claim]
        assert f"Not shown: {claim.replace('_', ' ')}." in report.conclusion()

    def test_attacks_in_training_have_to_help(self) -> None:
        report = report_of()
        results = {**report.results, Kind(0.0, is_attacked=False): [evaluation()] * 3}
        assert not replace(report, results=results).shown()["attacks_in_training_help"]

    @pytest.mark.parametrize(
        ("after", "flat"),
        [
            (Memory(405.0, 70), True),
            (Memory(300.0, 69), True),
            (Memory(None, 70), True),
            (Memory(410.0, 70), False),
            (Memory(400.0, 71), False),
            (Memory(400.0, 70, gpu_mib=9.0), False),
        ],
    )
    def test_memory_is_resident_and_in_tensors(self, after: Memory, flat: bool) -> None:
        report = report_of()
        steps = replace(report.steps, after=after)
        assert replace(report, steps=steps).shown()["memory_is_flat"] is flat

    @pytest.mark.parametrize(
        ("lowered", "raised", "verdict"),
        [
            ([-3, -2, -1], [1, 2, 3], "rises with selectivity in each pair"),
            ([3, 2, 1], [-1, -2, -3], "falls with selectivity in each pair"),
            ([3, 2, 1], [1, 2, 3], "does not go one way with selectivity"),
            ([-3, -2, 1], [1, 2, 3], "does not go one way with selectivity"),
            ([3], [-1], "One network of each kind does not tell"),
        ],
    )
    def test_claims_a_direction_only_where_every_pair_has_it(
        self, lowered: list[float], raised: list[float], verdict: str
    ) -> None:
        assert verdict in report_of(lowered, raised).conclusion()

    def test_the_conclusion_holds_the_numbers(self) -> None:
        conclusion = report_of([1, 2, 3], [-2, 0, 2]).conclusion()
        assert "At eps = 0.1, that of the training, it is 80.0% at alpha = 0" in conclusion
        assert "60.0% with no attack in training" in conclusion
        assert "0.100 at alpha = -2, 0.300 at alpha = 0, 0.500 at alpha = +2" in conclusion
        assert "alpha = -2 against 0" in conclusion
        assert "+2.0 [+1.0, +3.0] percentage points in 3 pairs" in conclusion
        assert "+0.0 [-2.0, +2.0] percentage points in 3 pairs" in conclusion
        assert "Memory is flat over 9 steps: +1.0 MiB resident, +0 tensors" in conclusion
        assert "Of a training step of 40.0 ms the attack" in conclusion
        assert "takes 30.0 ms" in conclusion


Run = Callable[..., tuple[int, str]]


class TestCommand:
    @pytest.fixture
    def run(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
        def run(*arguments: str) -> tuple[int, str]:
            options = ["--quick", "--quiet", "--output", str(tmp_path)]
            status = main(["demo", "attack", *options, *arguments])
            shown = capsys.readouterr()
            assert shown.err == ""
            return status, shown.out

        return run

    @pytest.fixture
    def _few_images(self, digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
        few = Digits(first(digits.train, 256), first(digits.test, 50))
        monkeypatch.setattr("selkern.demo.attack.cli.load_digits", lambda: few)

    @pytest.mark.usefixtures("_few_images")
    def test_writes_tables_data_and_a_figure(self, run: Run, tmp_path: Path) -> None:
        status, shown = run("--epochs", "1")
        data = json.loads((tmp_path / "demo.json").read_text())
        assert status == (0 if all(data[claim] for claim in CLAIMS) else 1)
        assert [Kind(n["alpha"], n["is_attacked"]) for n in data["networks"]] == list(KINDS)
        for network in data["networks"]:
            assert [float(eps) for eps in network["pgd"]] == list(EPS)
            assert f"{network['clean']:.1%}" in shown
            assert f"{network['selectivity']:.3f}" in shown
        assert all(title(kind) in shown for kind in KINDS)
        assert all(line in shown for line in data["conclusion"])
        assert data["memory"]["steps"] == 50
        assert set(data["step_milliseconds"]) == {ATTACK, REST, STEP}
        assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")

    @pytest.mark.usefixtures("_few_images")
    def test_prints_json_instead_and_puts_the_threads_back(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Steps, "memory_is_flat", lambda self: False)
        torch.set_num_threads(2)
        status, shown = run("--epochs", "1", "--json", "--seed", "7")
        data = json.loads(shown)
        assert data == json.loads((tmp_path / "demo.json").read_text())
        assert data["memory_is_flat"] is False
        assert status == 1
        assert data["machine"]["threads"] == 1
        assert data["recipe"]["seed"] == data["networks"][0]["seed"] == 7
        assert torch.get_num_threads() == 2

    @pytest.mark.slow
    def test_a_quick_run_shows_what_it_is_to_show(self, run: Run, tmp_path: Path) -> None:
        status, _ = run()
        assert status == 0
        networks = json.loads((tmp_path / "demo.json").read_text())["networks"]
        *attacked, unattacked = networks
        assert all(network["clean"] > 0.9 for network in networks)
        assert all(network["pgd"]["0.1"] > 0.6 > unattacked["pgd"]["0.1"] for network in attacked)


def test_the_attack_in_training_reaches_every_point_of_the_ball() -> None:
    attack = make_pgd(nn.Identity(), eps=0.1, steps=5)
    assert attack.alpha * attack.steps >= 2 * attack.eps
    assert attack.random_start
