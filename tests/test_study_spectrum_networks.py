"""The networks, objectives and presets of the spectrum study."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from study_cases import random_images
from torch import nn
from torch.nn import functional as F

import selkern
from selkern._outputs import LayerOutputs
from selkern.data import ImageSet
from selkern.study.base import Cell
from selkern.study.folder import Folder
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
from selkern.study.spectrum.presets import choose
from selkern.study.training import Recipe, Trainer

DIGITS, MNIST, CIFAR = (1, 8, 8), (1, 28, 28), (3, 32, 32)


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


def test_each_batch_counts_for_a_tenth_in_the_running_averages_of_whitening():
    batches = torch.randn(2, 30, 4, generator=torch.Generator().manual_seed(0)) * 2 + 1
    whitening = Whitening(4)
    for batch in batches:
        whitening(batch)
    mean1, mean2 = batches.double().mean(1)
    covariance1, covariance2 = (batch.double().T.cov() for batch in batches)
    torch.testing.assert_close(whitening.mean, 0.1 * mean2 + 0.9 * 0.1 * mean1)
    expected = 0.1 * covariance2 + 0.9 * (0.1 * covariance1 + 0.9 * torch.eye(4))
    torch.testing.assert_close(whitening.covariance, expected)


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


@pytest.mark.parametrize("regularizer", ["last layer, frozen", "all layers, frozen"])
def test_frozen_eigenvectors_are_found_anew_in_each_epoch(regularizer):
    torch.manual_seed(0)
    data = random_images(40, seed=0)
    model = make_network(Architecture((15, 20)), data.image_shape, 3)
    objective = make_objective(regularizer, model, beta=0.5, jacobian=0.0)
    objective.begin_epoch(data, torch.Generator())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    objective.begin_epoch(data, torch.Generator())
    with LayerOutputs(hidden_layers(model)) as outputs, torch.no_grad():
        model(data.tensors()[0])
    for layer, basis in objective.penalty.bases.items():
        along = basis.T @ outputs.maps[layer].T.cov() @ basis
        torch.testing.assert_close(along, along.diagonal().diag(), atol=1e-5, rtol=0)


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
    assert (preset.jacobian, preset.seeds, preset.networks[network].beta) == (0.01, 5, 2)


def test_the_paper_had_no_images_of_other_shapes():
    with pytest.raises(ValueError, match=r"got images 1 x 8 x 8: use --preset small"):
        choose("paper", DIGITS)
