"""SpectralRegularizer: the loss and its gradients, exact and along a basis of the whole data."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from selkern import SpectralRegularizer, reference

ACTIVATIONS = [nn.ReLU, nn.Tanh, nn.GELU, nn.SiLU, nn.Sigmoid]
BACKENDS = pytest.mark.parametrize("backend", ["selkern", "reference"])


class Network(nn.Module):
    """A convolution and two hidden layers, of which the second activation is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.relu = nn.ReLU()
        self.hidden = nn.Linear(64, 20)
        self.tanh = nn.Tanh()
        self.second = nn.Linear(20, 20)
        self.head = nn.Linear(20, 3)

    def activations(self, x: Tensor) -> list[Tensor]:
        conv = F.relu(self.conv(x))
        hidden = torch.tanh(self.hidden(conv.flatten(1)))
        return [conv, hidden, torch.tanh(self.second(hidden))]

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv(x))
        x = self.tanh(self.hidden(x.flatten(1)))
        return self.head(self.tanh(self.second(x)))


NAMES = ["relu", "tanh", "tanh_1"]


@pytest.fixture
def model() -> Network:
    torch.manual_seed(0)
    return Network()


@pytest.fixture
def x() -> Tensor:
    return torch.rand(40, 1, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def data() -> TensorDataset:
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(150, 1, 6, 6, generator=generator)
    return TensorDataset(images, torch.arange(150) % 3)


def gradients(loss: Tensor, model: nn.Module) -> list[Tensor]:
    parameters = [p for name, p in model.named_parameters() if not name.startswith("head")]
    return list(torch.autograd.grad(loss, parameters))


def assert_step(actual: Tensor, expected: Tensor, model: nn.Module) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
    for a, b in zip(gradients(actual, model), gradients(expected, model), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def eigenbasis(activations: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues and vectors of the covariance of all samples, in float64, descending."""
    samples = activations.flatten(1).double().numpy()
    values, vectors = np.linalg.eigh(np.cov(samples.T))
    return torch.from_numpy(values[::-1].copy()), torch.from_numpy(vectors[:, ::-1].copy())


# ------------------------------------------------------------------------------------------ exact


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
        model(x[:7])
        with pytest.raises(ValueError, match=r"relu.*got 7 from N = 7 .*drop_last=True"):
            reg()


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


@pytest.mark.parametrize("mode", ["exact", "frozen"])
def test_a_compiled_model_gives_the_same(
    model: Network, x: Tensor, data: TensorDataset, mode: str
) -> None:
    torch.compiler.reset()
    with SpectralRegularizer(model, beta=1.0, mode=mode) as reg:
        if mode == "frozen":
            reg.refresh(DataLoader(data, batch_size=32))
        model(x)
        expected = reg()
        expected_gradients = gradients(expected, model)
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        for _ in range(2):
            compiled(x)
            penalty = reg()
            torch.testing.assert_close(penalty, expected, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(
                gradients(penalty, model), expected_gradients, rtol=1e-3, atol=1e-5
            )


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


# ----------------------------------------------------------------------------------------- frozen


@BACKENDS
@pytest.mark.parametrize("batch_size", [150, 40, 1])
def test_the_basis_is_that_of_all_the_data(
    model: Network, data: TensorDataset, batch_size: int, backend: str
) -> None:
    # Of the data, because units that are dead there leave part of the basis open.
    x = data.tensors[0][:40]
    with torch.no_grad():
        of_all = model.activations(data.tensors[0])
    bases = [eigenbasis(activation)[1] for activation in of_all]
    batch = [a.flatten(1) for a in model.activations(x)]
    spectra = [
        reference.eigenspectrum(a.detach().double(), basis=v)
        for a, v in zip(batch, bases, strict=True)
    ]
    expected = reference.spectral_loss(batch, basis=bases)
    with SpectralRegularizer(model, beta=1.0, mode="frozen", backend=backend) as reg:
        reg.refresh(DataLoader(data, batch_size=batch_size))
        model(x)
        penalty = reg()
        for name, spectrum in zip(NAMES, spectra, strict=True):
            torch.testing.assert_close(
                reg.spectra[name].double(), spectrum, rtol=1e-3, atol=1e-6 * spectrum[0].item()
            )
        assert_step(penalty, expected, model)


def test_refresh_takes_tensors_and_pairs_and_counts_every_sample_once(
    model: Network, data: TensorDataset
) -> None:
    images, labels = data.tensors
    losses = []
    for loader in (
        DataLoader(data, batch_size=64),
        [images[:100], images[100:]],
        ((part,) for part in images.split(30)),
        [[images, labels]],
    ):
        with SpectralRegularizer(model, beta=1.0, mode="frozen") as reg:
            reg.refresh(loader)
            model(images[:40])
            losses.append(reg().detach())
    for loss in losses[1:]:
        torch.testing.assert_close(loss, losses[0], rtol=1e-4, atol=1e-5)


def test_a_far_mean_costs_the_basis_nothing() -> None:
    model = nn.Sequential(nn.Identity())
    samples = torch.randn(200, 16) * torch.linspace(1, 4, 16) + 10_000
    _, vectors = eigenbasis(samples)
    with SpectralRegularizer(model, beta=1.0, mode="frozen", layers="0") as reg:
        reg.refresh(samples.split(23))
        model(samples.requires_grad_())
        reg()
        expected = reference.eigenspectrum(samples.detach().double(), basis=vectors)
        torch.testing.assert_close(
            reg.spectra["0"].double(), expected, rtol=1e-4, atol=1e-5 * expected[0].item()
        )


def test_refresh_leaves_the_model_as_it_was(model: Network, data: TensorDataset) -> None:
    network = nn.Sequential(model.conv, nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5)).train()
    network[3].eval()
    before = copy.deepcopy(network.state_dict())
    with SpectralRegularizer(network, beta=1.0, mode="frozen") as reg:
        reg.refresh(DataLoader(data, batch_size=50))
    assert [module.training for module in network.children()] == [True, True, True, False]
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(parameter.grad is None for parameter in network.parameters())


def test_refresh_holds_no_activations(data: TensorDataset) -> None:
    alive: list[int] = []
    outputs: list[object] = []

    class Counting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x.flatten(1)[:, :20] * 1
            outputs.append(torch.multiprocessing.reductions.StorageWeakRef(y.untyped_storage()))
            alive.append(sum(not output.expired() for output in outputs))
            return y

    model = nn.Sequential(Counting(), nn.Tanh())

    with SpectralRegularizer(model, beta=1.0, mode="frozen", layers="0") as reg:
        reg.refresh(data.tensors[0].split(5))
    assert len(alive) == 30
    assert max(alive) <= 2


def test_frozen_without_refresh_is_refused(model: Network, x: Tensor) -> None:
    with SpectralRegularizer(model, beta=1.0, mode="frozen") as reg:
        model(x)
        with pytest.raises(RuntimeError, match="refresh"):
            reg()


def test_refresh_of_nothing_is_refused(model: Network) -> None:
    with SpectralRegularizer(model, beta=1.0, mode="frozen") as reg:
        with pytest.raises(ValueError, match="loader"):
            reg.refresh([])
        with pytest.raises(TypeError, match="loader"):
            reg.refresh(3)


# --------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": 3}, TypeError, r"model must be a torch\.nn\.Module, got int"),
        ({"beta": "2"}, TypeError, "beta must be a real number, got str"),
        ({"beta": True}, TypeError, "beta must be a real number, got bool"),
        ({"beta": float("nan")}, ValueError, "beta must be finite, got nan"),
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
