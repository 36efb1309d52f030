"""``python -m selkern demo spectrum``: its parts, and what a short run writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("selkern._benchmarks")
pytest.importorskip("matplotlib")
pytest.importorskip("skimage")
pytest.importorskip("sklearn")

from selkern._benchmarks.compare import Comparison
from torch import Tensor, nn

import selkern
from selkern import analysis
from selkern.__main__ import main
from selkern._outputs import LayerOutputs
from selkern.demo.agreement import LossesDisagree
from selkern.demo.data import Digits, load_digits
from selkern.demo.spectrum import train as training
from selkern.demo.spectrum.evaluate import Evaluation, Layer, evaluate
from selkern.demo.spectrum.model import hidden_layers, make_network
from selkern.demo.spectrum.photographs import PHOTOGRAPHS, load_patches, spectrum_of_patches
from selkern.demo.spectrum.plain import PlainRegularizer, principal_axes
from selkern.demo.spectrum.report import Report, Result
from selkern.demo.spectrum.timing import STEPS
from selkern.demo.spectrum.train import MODES, Recipe, Training, train

WIDTH = 40
TIMES = Comparison({name: np.ones(3) for name in STEPS})


@pytest.fixture(autouse=True)
def _one_thread(restore_threads: None) -> None:
    """The networks are too small to be worth a second one, which others may be using."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def digits() -> Digits:
    return load_digits()


@pytest.fixture
def model() -> nn.Sequential:
    torch.manual_seed(0)
    return make_network(WIDTH)


def maps_of(model: nn.Module, images: Tensor) -> list[Tensor]:
    with LayerOutputs(hidden_layers(model)) as outputs:
        model(images)
    return list(outputs.maps.values())


class TestPhotographs:
    def test_patches_are_grey_pieces_of_every_photograph(self) -> None:
        patches = load_patches(size=6, each=20, seed=0)
        assert patches.shape == (20 * len(PHOTOGRAPHS), 36)
        assert patches.dtype == torch.float64
        assert 0 <= patches.min() < patches.max() <= 1

    def test_the_seed_decides(self) -> None:
        first, same, other = (load_patches(size=4, each=5, seed=seed) for seed in (0, 0, 1))
        assert torch.equal(first, same)
        assert not torch.equal(first, other)

    def test_spectrum_is_that_of_the_covariance(self) -> None:
        patches = load_patches(size=6, each=100, seed=0)
        measured = spectrum_of_patches(patches)
        expected = torch.linalg.eigvalsh(torch.cov(patches.T)).flip(0)
        torch.testing.assert_close(measured.spectrum, expected, rtol=0, atol=1e-12)
        assert (measured.patches, measured.pixels) == (500, 36)
        assert measured.fit == analysis.fit_power_law(measured.spectrum)
        assert measured.fit.exponent > 1
        assert measured.participation_ratio < 10


class TestNetwork:
    def test_the_spectra_are_of_the_tanh_outputs_over_the_whole_training_set(
        self, model: nn.Sequential, digits: Digits
    ) -> None:
        evaluation = evaluate(model, digits)
        assert list(evaluation.layers) == ["tanh1", "tanh2", "tanh3"]
        for x, layer in zip(maps_of(model, digits.train.images), evaluation.layers.values()):
            assert x.shape == (len(digits.train), WIDTH)
            assert x.abs().max() <= 1
            expected = torch.linalg.eigvalsh(torch.cov(x.double().T)).flip(0)
            torch.testing.assert_close(layer.spectrum, expected, rtol=0, atol=1e-10)
            assert (layer.whole.first, layer.whole.last) == (12, WIDTH)
            assert (layer.short.first, layer.short.last) == (12, min(50, WIDTH))

    def test_accuracy_is_of_the_test_images(self, digits: Digits) -> None:
        class Oracle(nn.Sequential):
            def forward(self, images: Tensor) -> Tensor:
                super().forward(images)
                right = digits.test.labels if len(images) == len(digits.test) else 0 * images[:, 0]
                return nn.functional.one_hot(right.flatten().long() % 10, 10)

        oracle = Oracle(nn.Flatten(), nn.Linear(64, WIDTH), nn.Tanh())
        assert evaluate(oracle, digits).accuracy == 1


KINDS = ("published", "published, one by one", "exact")


class TestPlainRegularizer:
    @pytest.mark.parametrize("kind", KINDS)
    def test_has_the_value_and_gradient_of_the_reference(
        self, kind: str, model: nn.Sequential, digits: Digits
    ) -> None:
        plain = PlainRegularizer(model, beta=3.0, kind=kind)
        plain.refresh(digits.train)
        images = digits.train.images[:200]
        model(images)
        term = plain()
        basis = None if kind == "exact" else principal_axes(model, digits.train)
        maps = []
        for layer in model:
            images = layer(images)
            maps += [images] if isinstance(layer, nn.Tanh) else []
        expected = 3 * selkern.reference.spectral_loss(maps, basis=basis)
        torch.testing.assert_close(term, expected, rtol=1e-5, atol=0)
        assert expected > 0.1
        weights = [model.get_submodule(f"linear{number}").weight for number in (1, 2, 3)]
        gradients = torch.autograd.grad(term, weights)
        for actual, wanted in zip(gradients, torch.autograd.grad(expected, weights), strict=True):
            torch.testing.assert_close(
                actual, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max())
            )

    def test_axes_diagonalise_the_covariance_of_all_images(
        self, model: nn.Sequential, digits: Digits
    ) -> None:
        maps = maps_of(model, digits.train.images)
        for x, axes in zip(maps, principal_axes(model, digits.train)):
            variances = axes.double().T @ torch.cov(x.double().T) @ axes.double()
            off_diagonal = variances - variances.diagonal().diag()
            assert off_diagonal.abs().max() < 1e-6 * variances.max()


class TestTraining:
    @pytest.mark.parametrize("mode", MODES)
    def test_compares_the_losses_on_the_way(self, mode: str, digits: Digits) -> None:
        trained = train(mode, digits.train, Recipe(epochs=11, compare_every=10, width=WIDTH))
        assert trained.comparisons == (0 if mode == "without" else 2)
        assert trained.largest_difference < 1e-4

    def test_starts_every_mode_from_the_same_weights(self, digits: Digits) -> None:
        untrained = Recipe(epochs=1, learning_rate=0.0, width=WIDTH, compare_every=2)
        first, *others = (train(mode, digits.train, untrained).model for mode in MODES)
        for other in others:
            for expected, actual in zip(first.parameters(), other.parameters(), strict=True):
                assert torch.equal(actual, expected)

    def test_losses_that_differ_are_refused(
        self, digits: Digits, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(selkern.reference, "spectral_loss", lambda *_, **__: torch.tensor(9.0))
        with pytest.raises(LossesDisagree, match=r"exact, epoch 1: .* expected at most 1e-04"):
            train("exact", digits.train, Recipe(epochs=2, compare_every=2, width=WIDTH))

    def test_the_model_is_left_without_hooks(self, digits: Digits) -> None:
        model = train("exact", digits.train, Recipe(epochs=1, width=WIDTH)).model
        assert not any(module._forward_hooks for module in model.modules())


def report_of(without: list[float], exact: list[float]) -> Report:
    """A report of networks with these exponents."""

    def layer(exponent: float) -> Layer:
        spectrum = torch.arange(1.0, 61.0).double() ** -exponent
        fits = [analysis.fit_power_law(spectrum, 12, last) for last in (60, 50)]
        return Layer(spectrum, *fits)

    def result(mode: str, exponents: list[float]) -> Result:
        layers = {f"tanh{i + 1}": layer(exponent) for i, exponent in enumerate(exponents)}
        return Result(Training(nn.Identity(), 2, 3e-7, mode, 1.0), Evaluation(0.96, layers))

    patches = spectrum_of_patches(torch.rand(50, 20))
    results = {
        "without": result("without", without),
        "exact": result("exact", exact),
        "frozen": result("frozen", without),
    }
    return Report(patches, results, TIMES, test_images=450, live_pixels=60, threads=1)


class TestReport:
    @pytest.mark.parametrize(
        ("exact", "reached"),
        [
            ([1.5, 1.14, 0.86], True),
            ([1.51, 1.0, 1.0], False),
            ([1.0, 1.16, 1.0], False),
            ([1.0, 1.0, 0.84], False),
        ],
    )
    def test_says_whether_the_spectrum_was_reached(self, exact: list[float], reached: bool) -> None:
        report = report_of([2.0, 1.9, 1.8], exact)
        assert report.reached() is reached
        assert report.as_data()["spectrum_reached"] is reached

    def test_the_conclusion_holds_the_numbers(self) -> None:
        conclusion = report_of([2.0, 1.9, 1.8], [1.25, 1.02, 0.96]).conclusion()
        assert "without 2.00, 1.90, 1.80; exact 1.25, 1.02, 0.96" in conclusion
        assert "Exact: the second and later hidden layers come within 0.04" in conclusion
        assert "75% of the way" in conclusion
        assert "Of 450 test images 0 more are right than without" in conclusion
        assert "at most 3.0e-07 of the loss in 6 comparisons" in conclusion


def run(arguments: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    status = main(["demo", "spectrum", "--quiet", "--output", str(folder), *arguments])
    shown = capsys.readouterr()
    assert shown.err == ""
    return status, shown.out


class TestCommand:
    def test_writes_tables_data_and_a_figure(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        status, shown = run(["--quick", "--epochs", "1"], tmp_path, capsys)
        assert status == 1
        data = json.loads((tmp_path / "spectrum.json").read_text())
        assert data["spectrum_reached"] is False
        assert list(data["networks"]) == ["without", "exact", "frozen"]
        assert set(data["step_milliseconds"]) == set(STEPS)
        for network in data["networks"].values():
            assert f"{network['test_accuracy']:.1%}" in shown
            for layer in network["layers"].values():
                assert len(layer["spectrum"]) == data["recipe"]["width"]
                assert f"{layer['whole']['exponent']:.2f}" in shown
        assert f"{data['photographs']['fit']['exponent']:.2f}" in shown
        assert all(line in shown for line in data["conclusion"])
        assert (tmp_path / "spectrum.png").read_bytes().startswith(b"\x89PNG")

    def test_prints_json_instead_and_puts_the_threads_back(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        torch.set_num_threads(2)
        _, shown = run(["--quick", "--epochs", "1", "--json"], tmp_path, capsys)
        data = json.loads(shown)
        assert data == json.loads((tmp_path / "spectrum.json").read_text())
        assert data["machine"]["threads"] == 1
        assert torch.get_num_threads() == 2

    @pytest.mark.slow
    def test_the_exact_mode_gives_the_spectrum_it_was_asked_for(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        status, _ = run(["--quick"], tmp_path, capsys)
        networks = json.loads((tmp_path / "spectrum.json").read_text())["networks"]
        assert status == 0
        for mode in ("exact", "frozen"):
            first, *later = networks[mode]["layers"].values()
            for layer in later:
                for fit in ("whole", "short"):
                    assert abs(layer[fit]["exponent"] - 1) < 0.15
            without = networks["without"]["layers"]["tanh1"]["whole"]["exponent"]
            assert first["whole"]["exponent"] < (1 + without) / 2
            assert networks[mode]["test_accuracy"] > 0.95


def test_the_recipe_is_the_papers_but_for_sizes() -> None:
    optimizer = training.make_optimizer(make_network(WIDTH), Recipe())
    assert isinstance(optimizer, torch.optim.Adam)
    assert optimizer.defaults["amsgrad"] is True
    assert optimizer.defaults["weight_decay"] == 0
