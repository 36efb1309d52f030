"""SpectralRegularizer: the loss and its gradients, by the eigenvalues of each batch."""

from __future__ import annotations

import copy

import pytest
import torch
from spectral_networks import NAMES, Network, assert_step, gradients, images
from torch import Tensor, nn
from torch.nn import functional as F

from selkern import SpectralRegularizer, reference

ACTIVATIONS = [nn.ReLU, nn.Tanh, nn.GELU, nn.SiLU, nn.Sigmoid]
BACKENDS = pytest.mark.parametrize("backend", ["selkern", "reference"])


@pytest.fixture
def model() -> Network:
    return Network()


@pytest.fixture
def x() -> Tensor:
    return images(40)


@BACKENDS
def test_loss_and_gradients_are_those_of_the_definition(
    model: Network, x: Tensor, backend: str
) -> None:
    expected = 0.5 * reference.spectral_loss(model.activations(x))
    with SpectralRegularizer(model, beta=0.5, backend=backend) as reg:
        model(x)
        penalty = reg()
        assert penalty.shape == ()
        assert_step(penalty, expected, model)


@BACKENDS
def test_exponent_and_anchor_are_those_of_the_penalty(
    model: Network, x: Tensor, backend: str
) -> None:
    options = {"exponent": 1.5, "anchor": 4}
    expected = reference.spectral_loss(model.activations(x), **options)
    with SpectralRegularizer(model, beta=1.0, backend=backend, **options) as reg:
        model(x)
        torch.testing.assert_close(reg(), expected, rtol=1e-4, atol=1e-5)


@BACKENDS
def test_spectra_are_those_of_the_last_batch(model: Network, x: Tensor, backend: str) -> None:
    with SpectralRegularizer(model, beta=1.0, backend=backend) as reg:
        model(x[:20])
        reg()
        model(x)
        penalty = reg()
    assert list(reg.spectra) == NAMES
    losses = []
    for name, activation in zip(NAMES, model.activations(x), strict=True):
        samples = activation.detach().flatten(1)
        spectrum = reg.spectra[name]
        assert not spectrum.requires_grad
        torch.testing.assert_close(spectrum, reference.eigenspectrum(samples), rtol=1e-4, atol=1e-6)
        losses.append(reference.power_law_penalty(spectrum, width=samples.shape[1]))
    torch.testing.assert_close(torch.stack(losses).mean(), penalty.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_every_kind_of_activation_is_found(kind: type[nn.Module]) -> None:
    model = nn.Sequential(nn.Linear(20, 20), kind(), nn.Linear(20, 20), nn.Softmax(1))
    samples = torch.randn(40, 20)
    expected = reference.spectral_loss(kind()(model[0](samples)))
    with SpectralRegularizer(model, beta=1.0) as reg:
        model(samples)
        torch.testing.assert_close(reg(), expected, rtol=1e-4, atol=1e-5)
    assert list(reg.spectra) == ["1"]


@pytest.mark.parametrize("inplace", [False, True])
def test_a_relu_in_place(inplace: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(inplace=inplace), nn.Linear(30, 3))
    samples = torch.randn(40, 20)
    expected = reference.spectral_loss(F.relu(model[0](samples)))
    with SpectralRegularizer(model, beta=1.0) as reg:
        model(samples)
        torch.testing.assert_close(reg(), expected, rtol=1e-4, atol=1e-5)


def test_layers_may_be_chosen(model: Network, x: Tensor) -> None:
    conv, hidden, second = model.activations(x)
    for layers, expected in [
        ("relu", [conv]),
        (["t*"], [hidden, second]),
        (model.tanh, [hidden, second]),
        (["hidden", model.relu], [model.hidden(conv.flatten(1)), conv]),
    ]:
        with SpectralRegularizer(model, beta=1.0, layers=layers) as reg:
            model(x)
            torch.testing.assert_close(
                reg(), reference.spectral_loss(expected), rtol=1e-4, atol=1e-5
            )


def test_beta_may_change_between_steps(model: Network, x: Tensor) -> None:
    with SpectralRegularizer(model, beta=1.0) as reg:
        model(x)
        before = reg()
        reg.beta = 3.0
        torch.testing.assert_close(reg(), 3 * before)


def test_the_last_forward_counts(model: Network, x: Tensor) -> None:
    expected = reference.spectral_loss(model.activations(x))
    with SpectralRegularizer(model, beta=1.0) as reg:
        adversarial = x.clone().requires_grad_()
        torch.autograd.grad(model(adversarial).square().sum(), adversarial)
        with torch.no_grad():
            model(x + 1)
        model(x)
        assert_step(reg(), expected, model)


def test_nothing_captured_is_named(model: Network, x: Tensor) -> None:
    with SpectralRegularizer(model, beta=1.0) as reg:
        with pytest.raises(RuntimeError, match="no activation was captured"):
            reg()
        with torch.no_grad():
            model(x)
        with pytest.raises(RuntimeError, match="no_grad"):
            reg()
    with pytest.raises(RuntimeError, match="closed"):
        reg()


def test_a_short_last_batch_is_named(model: Network, x: Tensor) -> None:
    with SpectralRegularizer(model, beta=1.0) as reg:
        model(x[:12])
        with pytest.raises(ValueError, match=r"relu.*got 11 from N = 12 .*drop_last=True"):
            reg()
        model(x[:13])
        assert reg() > 0


def test_the_model_is_put_back(model: Network, x: Tensor) -> None:
    before = copy.deepcopy(model.state_dict())
    kinds = [type(module) for module in model.modules()]
    expected = model(x)
    reg = SpectralRegularizer(model, beta=1.0)
    torch.testing.assert_close(model(x), expected)
    assert list(model.state_dict()) == list(before)
    reg.close()
    assert [type(module) for module in model.modules()] == kinds
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.equal(model(x), expected)


def test_autocast_lowers_the_model_but_not_the_penalty(model: Network, x: Tensor) -> None:
    with SpectralRegularizer(model, beta=1.0) as reg, torch.autocast("cpu", torch.bfloat16):
        logits = model(x)
        penalty = reg()
    assert logits.dtype == torch.bfloat16
    assert penalty.dtype == torch.float32
    assert all(gradient.isfinite().all() for gradient in gradients(penalty, model))


def test_training_brings_the_spectrum_to_the_law() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 20), nn.Tanh())
    samples = torch.randn(100, 20)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    with SpectralRegularizer(model, beta=1.0, anchor=3) as reg:
        for _ in range(60):
            optimizer.zero_grad()
            model(samples)
            penalty = reg()
            penalty.backward()
            optimizer.step()
            losses.append(penalty.item())
    assert losses[-1] < 0.3 * losses[0]


@BACKENDS
def test_exponent_and_anchor_may_change_between_steps(
    model: Network, x: Tensor, backend: str
) -> None:
    with SpectralRegularizer(model, beta=1.0, backend=backend) as reg:
        model(x)
        reg.exponent, reg.anchor = 2.0, 5
        expected = reference.spectral_loss(model.activations(x), exponent=2.0, anchor=5)
        torch.testing.assert_close(reg(), expected, rtol=1e-4, atol=1e-5)
        reg.exponent = -1.0
        with pytest.raises(ValueError, match="exponent must be finite and at least 0, got -1"):
            reg()
        reg.exponent, reg.anchor = 1.0, 0
        with pytest.raises(ValueError, match="anchor must be a rank, counted from 1, got 0"):
            reg()


@BACKENDS
@pytest.mark.parametrize("mode", ["exact", "frozen"])
def test_mode_and_backend_stay(model: Network, mode: str, backend: str) -> None:
    with SpectralRegularizer(model, beta=1.0, mode=mode, backend=backend) as reg:
        for name in ("mode", "backend"):
            with pytest.raises(AttributeError):
                setattr(reg, name, "frozn")
        assert (reg.mode, reg.backend) == (mode, backend)


# --------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": 3}, TypeError, r"model must be a torch\.nn\.Module, got int"),
        ({"beta": "2"}, TypeError, "beta must be a real number, got str"),
        ({"beta": True}, TypeError, "beta must be a real number, got bool"),
        ({"beta": float("nan")}, ValueError, "beta must be finite, got nan"),
        ({"beta": torch.tensor(torch.inf)}, ValueError, "beta must be finite, got inf"),
        ({"beta": 10**400}, ValueError, "beta must be finite, got 1000"),
        ({"exponent": -1.0}, ValueError, "exponent must be finite and at least 0, got -1.0"),
        ({"anchor": 0}, ValueError, "anchor must be a rank, counted from 1, got 0"),
        ({"anchor": 1.0}, TypeError, "anchor must be an integer, got float"),
        ({"mode": "melted"}, ValueError, "mode must be .*exact.*frozen.*, got 'melted'"),
        ({"backend": "numpy"}, ValueError, "backend must be one of .*, got 'numpy'"),
        ({"layers": ["rleu"]}, ValueError, "got 'rleu'; did you mean 'relu'"),
        ({"layers": 5}, TypeError, "layers must be names, globs or modules, got int"),
        ({"layers": []}, ValueError, "layers must select at least one layer, got none"),
        ({"model": nn.Linear(2, 2)}, ValueError, "pass layers="),
    ],
)
def test_refusals_name_the_argument(
    model: Network, change: dict, error: type[Exception], message: str
) -> None:
    arguments = {"model": model, "beta": 1.0} | change
    with pytest.raises(error, match=message):
        SpectralRegularizer(arguments.pop("model"), **arguments)
