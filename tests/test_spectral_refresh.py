"""SpectralRegularizer along a basis of the whole data set, which refresh takes."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable

import pytest
import torch
from spectral_networks import NAMES, Network, assert_step, eigenbasis, gradients, images
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from selkern import SpectralRegularizer, reference

BACKENDS = pytest.mark.parametrize("backend", ["selkern", "reference"])


@pytest.fixture
def model() -> Network:
    return Network()


@pytest.fixture
def x() -> Tensor:
    return images(40)


@pytest.fixture
def data() -> TensorDataset:
    return TensorDataset(images(150, seed=2), torch.arange(150) % 3)


@BACKENDS
@pytest.mark.parametrize("batch_size", [150, 40, 1])
def test_the_basis_is_that_of_all_the_data(
    model: Network, data: TensorDataset, batch_size: int, backend: str
) -> None:
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


def test_refresh_under_inference_mode_gives_a_basis_to_train_with(
    model: Network, x: Tensor, data: TensorDataset
) -> None:
    losses = []
    for context in (torch.no_grad, torch.inference_mode):
        with SpectralRegularizer(model, beta=1.0, mode="frozen") as reg:
            with context():
                reg.refresh(part * 1 for part in data.tensors[0].split(50))
            model(x)
            losses.append(reg())
            assert all(gradient.isfinite().all() for gradient in gradients(losses[-1], model))
    torch.testing.assert_close(losses[1], losses[0])


def test_a_layer_that_hands_on_its_input_is_refreshed_under_inference_mode() -> None:
    model = nn.Sequential(nn.Identity())
    with SpectralRegularizer(model, beta=1.0, mode="frozen", layers="0") as reg:
        with torch.inference_mode():
            reg.refresh([torch.rand(30, 20)])
        assert not reg.bases["0"].is_inference()


# ------------------------------------------------------------------------------------------ bases


@BACKENDS
def test_bases_that_were_saved_take_the_place_of_a_refresh(
    model: Network, x: Tensor, data: TensorDataset, backend: str
) -> None:
    options = {"beta": 1.0, "mode": "frozen", "backend": backend}
    with SpectralRegularizer(model, **options) as reg:
        assert reg.bases == {}
        reg.refresh(DataLoader(data, batch_size=50))
        model(x)
        expected = reg()
        units = {name: len(basis) for name, basis in reg.bases.items()}
        file = io.BytesIO()
        torch.save(reg.bases, file)
    assert units == {"relu": 64, "tanh": 20, "tanh_1": 20}
    file.seek(0)
    with SpectralRegularizer(model, **options) as reg:
        reg.bases = torch.load(file)
        model(x)
        torch.testing.assert_close(reg(), expected)


def test_bases_may_have_fewer_directions_than_units(model: Network, x: Tensor) -> None:
    bases = {name: torch.eye(64 if name == "relu" else 20, 15) for name in NAMES}
    with SpectralRegularizer(model, beta=1.0, mode="frozen") as reg:
        reg.bases = {name: basis.double().requires_grad_() for name, basis in bases.items()}
        model(x)
        expected = reference.spectral_loss(model.activations(x), basis=list(bases.values()))
        torch.testing.assert_close(reg(), expected, rtol=1e-4, atol=1e-5)
        assert not any(basis.requires_grad for basis in reg.bases.values())


@pytest.mark.parametrize(
    ("bases", "error", "message"),
    [
        ([torch.eye(3)], TypeError, "bases must be a mapping of layer names to tensors, got list"),
        ({"tanh": [1.0]}, TypeError, r"bases\['tanh'\] must be a torch.Tensor, got list"),
        ({"tanh": torch.eye(3).long()}, TypeError, r"bases\['tanh'\] must be float16.*got int64"),
        ({"tanh": torch.ones(3)}, ValueError, r"bases\['tanh'\] must have shape \[D, R\].*\(3,\)"),
    ],
)
def test_bases_are_checked_where_they_are_set(
    model: Network, bases: object, error: type[Exception], message: str
) -> None:
    with SpectralRegularizer(model, beta=1.0, mode="frozen") as reg:
        with pytest.raises(error, match=message):
            reg.bases = bases
        assert reg.bases == {}


# --------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "use",
    [lambda reg: reg.refresh([images(30)]), lambda reg: setattr(reg, "bases", {})],
    ids=["refresh", "bases"],
)
def test_in_mode_exact_there_is_no_basis(model: Network, use: Callable) -> None:
    with SpectralRegularizer(model, beta=1.0) as reg:
        with pytest.raises(RuntimeError, match=r"mode must be 'frozen' for .*, got 'exact'"):
            use(reg)
        assert reg.bases == {}


def test_a_tensor_is_no_loader(model: Network, x: Tensor) -> None:
    message = r"loader must be .*, got Tensor: pass \[images\]"
    reg = SpectralRegularizer(model, beta=1.0, mode="frozen")
    with reg, pytest.raises(TypeError, match=message):
        reg.refresh(x)


def test_a_basis_for_another_number_of_units_asks_for_a_refresh() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
    with SpectralRegularizer(model, beta=1.0, mode="frozen") as reg:
        reg.refresh([images(100)])
        model(torch.rand(40, 1, 8, 8))
        message = r"basis of layer '1' is for 64 units.* has 144: call refresh\(loader\) again"
        with pytest.raises(RuntimeError, match=message):
            reg()


def test_batches_of_different_widths_name_the_layer() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
    batches = [torch.rand(5, length, 3) for length in (6, 8)]
    with SpectralRegularizer(model, beta=1.0, mode="frozen") as reg:
        with pytest.raises(ValueError, match=r"layer '1' must have as many .*, got 32 after 24"):
            reg.refresh(batches)
        assert reg.bases == {}


def test_a_batch_of_one_sample_is_named(model: Network, x: Tensor, data: TensorDataset) -> None:
    with SpectralRegularizer(model, beta=1.0, mode="frozen") as reg:
        reg.refresh(DataLoader(data, batch_size=50))
        model(x[:1])
        with pytest.raises(ValueError, match=r"'relu'.* at least 2 samples, got N = 1 .*drop_last"):
            reg()


def test_more_units_than_samples_leave_no_arbitrary_direction() -> None:
    """The penalty of other samples must not depend on the order of those that made the basis."""
    source = torch.Generator().manual_seed(3)
    model = nn.Sequential(nn.Linear(8, 60), nn.Tanh())
    inputs, x = torch.randn(40, 8, generator=source), torch.randn(50, 8, generator=source)
    penalties = []
    with SpectralRegularizer(model, beta=1.0, mode="frozen") as reg:
        for order in (torch.arange(40), torch.randperm(40, generator=source)):
            reg.refresh([inputs[order]])
            assert reg.bases["1"].shape == (60, 39)
            with torch.no_grad():
                model[0].weight.add_(0.05)
            model(x)
            penalties.append(reg().detach())
            with torch.no_grad():
                model[0].weight.sub_(0.05)
    torch.testing.assert_close(penalties[1], penalties[0], rtol=1e-4, atol=0)


def test_a_layer_that_does_not_vary_costs_nothing() -> None:
    model = nn.Sequential(nn.Linear(8, 20), nn.ReLU())
    nn.init.constant_(model[0].bias, -100.0)
    x = images(30).flatten(1)[:, :8]
    with SpectralRegularizer(model, beta=1.0, mode="frozen") as reg:
        reg.refresh([x])
        model(x)
        assert reg() == 0
