"""Which layers a regularizer takes, what it keeps of them, and that the model is unharmed."""

import copy
import gc
import io
import pickle
import weakref

import pytest
import torch
from networks import (
    NAMES,
    NUM_CLASSES,
)
from torch import nn

from selkern import SelectivityRegularizer, SpectralRegularizer, reference


def test_second_call_of_a_layer_never_hides_a_layer_of_that_name(batch):
    class Clash(nn.Module):
        def __init__(self):
            super().__init__()
            self.relu = nn.ReLU()
            self.relu_1 = nn.ReLU()

        def forward(self, x):
            return self.relu_1(self.relu(self.relu(x)) + 1)

    x, y = batch
    model = Clash()
    with SelectivityRegularizer(model, NUM_CLASSES, alpha=1.0) as reg:
        model(x)
        reg(y)
    assert sorted(reg.index) == ["relu", "relu_1", "relu_2"]


@pytest.mark.parametrize(
    ("layers", "names"),
    [
        (None, NAMES),
        (["hidden_relu"], ["hidden_relu"]),
        ("layer1.*.relu", ["layer1.0.relu", "layer1.0.relu_1"]),
        (["layer*.relu", "layer1.0.relu"], ["layer1.0.relu", "layer1.0.relu_1"]),
        (["stem", "relu"], ["stem", "relu"]),
    ],
)
def test_layers_are_chosen_by_name_and_glob(network, batch, layers, names):
    x, y = batch
    with SelectivityRegularizer(network, NUM_CLASSES, alpha=1.0, layers=layers) as reg:
        network(x)
        reg(y)
    assert list(reg.index) == names


def test_layers_are_chosen_by_module(network, batch):
    x, y = batch
    layers = [network.hidden_relu, network.layer1[0].conv1]
    with SelectivityRegularizer(network, NUM_CLASSES, alpha=1.0, layers=layers) as reg:
        network(x)
        reg(y)
    assert list(reg.index) == ["hidden_relu", "layer1.0.conv1"]


def test_close_puts_everything_back(network, batch):
    x, _ = batch
    keys = list(network.state_dict())
    before = network(x)
    reg = SelectivityRegularizer(network, NUM_CLASSES, alpha=1.0, layers=["*relu", "stem"])
    assert list(network.state_dict()) == keys
    assert all(isinstance(m, nn.ReLU) for n, m in network.named_modules() if n.endswith("relu"))
    torch.testing.assert_close(network(x), before, rtol=0, atol=0)
    reg.close()
    reg.close()
    modules = list(network.modules())
    assert all(type(m) is nn.ReLU for m in modules if isinstance(m, nn.ReLU))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in modules)
    assert not any("selkern" in name for m in modules for name in m.__dict__)
    with pytest.raises(RuntimeError, match="the regularizer is closed"):
        reg(batch[1])


def test_two_regularizers_can_share_a_model(network, batch):
    x, y = batch
    first = SelectivityRegularizer(network, NUM_CLASSES, alpha=-1.0)
    second = SelectivityRegularizer(network, NUM_CLASSES, alpha=-1.0)
    network(x)
    torch.testing.assert_close(first(y), second(y))
    first.close()
    network(x)
    second(y)
    second.close()
    assert type(network.relu) is nn.ReLU


@pytest.mark.parametrize("wrapped", [lambda model: model, nn.DataParallel])
def test_forgotten_regularizers_do_not_pile_up(network, batch, wrapped):
    x, y = batch
    kept = SpectralRegularizer(network, beta=1.0, anchor=2)
    for _ in range(4):
        # As a notebook does whose cell runs again: the one before is forgotten after this is there.
        reg = SelectivityRegularizer(wrapped(network), NUM_CLASSES, alpha=1.0)
    assert len(network._forward_pre_hooks) == 3
    network(x)
    assert reg(y) < 0 < kept()
    reg.close()
    assert len(network._forward_pre_hooks) == 1
    assert type(network.relu) is nn.ReLU
    assert len(network.relu._forward_hooks) == 1
    kept.close()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


@pytest.mark.parametrize("copied", ["deepcopy", "pickle"])
def test_copies_of_an_attached_model_are_plain(network, batch, copied):
    x, y = batch
    with SelectivityRegularizer(network, NUM_CLASSES, alpha=1.0, layers=["*relu", "stem"]) as reg:
        expected = network(x)
        if copied == "deepcopy":
            twin = copy.deepcopy(network)
        else:
            buffer = io.BytesIO()
            torch.save(network, buffer)
            buffer.seek(0)
            twin = torch.load(buffer, weights_only=False)
        penalty = reg(y)
        torch.testing.assert_close(twin(x), expected)
        torch.testing.assert_close(reg(y), penalty)
    assert type(twin.relu) is nn.ReLU


@pytest.mark.parametrize(
    "make",
    [
        lambda model: SelectivityRegularizer(model, NUM_CLASSES, alpha=1.0),
        lambda model: SpectralRegularizer(model, beta=1.0),
    ],
)
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_regularizer_is_never_copied_away_from_its_model(network, batch, make, copied):
    with make(network) as reg:
        network(batch[0])
        kind = type(reg).__name__
        with pytest.raises(TypeError, match=f"a {kind} cannot be .* attach a new {kind} to"):
            copied(reg)


def test_user_hooks_keep_working(network, batch):
    seen = []
    network.relu.register_forward_hook(lambda module, args, out: seen.append(out.detach().clone()))
    plain = network(batch[0])
    with SelectivityRegularizer(network, NUM_CLASSES, alpha=1.0):
        torch.testing.assert_close(network(batch[0]), plain)
    torch.testing.assert_close(seen[0], seen[1])


def test_graphs_of_earlier_forwards_are_freed(network, batch):
    x, _ = batch
    with SelectivityRegularizer(network, NUM_CLASSES, alpha=1.0):
        first = network(x)
        node = weakref.ref(first.grad_fn.next_functions[1][0])
        captured = weakref.ref(network.relu._selkern_tap.kept[0])
        del first
        with torch.no_grad():
            network(x)
        gc.collect()
        assert captured() is None
        assert node() is None


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_nothing_is_kept_without_gradients(network, batch, context):
    x, y = batch
    with SelectivityRegularizer(network, NUM_CLASSES, alpha=1.0) as reg:
        network(x)
        with context():
            network(x)
        with pytest.raises(RuntimeError, match=r"without gradients.*no_grad.*use_reentrant=False"):
            reg(y)


def test_a_step_without_a_forward_says_so(network, batch):
    with (
        SelectivityRegularizer(network, NUM_CLASSES, alpha=1.0) as reg,
        pytest.raises(RuntimeError, match=r"call the model before the regularizer.*torch\.compile"),
    ):
        reg(batch[1])


def test_a_step_after_its_layers_were_replaced_says_so(network, batch):
    layers = ["relu", "hidden_relu"]
    with SelectivityRegularizer(network, NUM_CLASSES, alpha=1.0, layers=layers) as reg:
        network.relu, network.hidden_relu = nn.ReLU(), nn.ReLU()
        network(batch[0])
        with pytest.raises(RuntimeError, match=r"\['relu', 'hidden_relu'\] were replaced in the"):
            reg(batch[1])


def test_wrapper_prefixes_are_ignored(network, batch):
    x, y = batch
    wrapped = nn.Module()
    wrapped.module = network
    wrapped.forward = network.forward
    for layers in (None, ["module.relu", "layer1.0.relu", "hidden_relu"]):
        with SelectivityRegularizer(wrapped, NUM_CLASSES, alpha=1.0, layers=layers) as reg:
            wrapped(x)
            reg(y)
        assert list(reg.index) == NAMES


def test_a_refused_regularizer_leaves_the_model_alone(network):
    with pytest.raises(ValueError, match="layers must name"):
        SelectivityRegularizer(network, NUM_CLASSES, alpha=1.0, layers=["relu", "nothing"])
    assert type(network.relu) is nn.ReLU


def test_a_layer_that_returns_no_tensor_is_named(batch):
    model = nn.Sequential(nn.LSTM(6, 5))
    with (
        SelectivityRegularizer(model, NUM_CLASSES, alpha=1.0, layers=["0"]),
        pytest.raises(TypeError, match=r"output of layer '0'.* must be a torch\.Tensor, got tuple"),
    ):
        model(batch[0][:, 0])


def test_a_hook_that_replaces_the_output_comes_first(batch):
    x, y = batch
    model = nn.Sequential(nn.Identity(), nn.ReLU())
    model[1].register_forward_hook(lambda module, args, out: out * torch.tensor([1.0, 0.0, 1.0]))
    x = x.movedim(1, -1)
    expected = reference.mean_selectivity(model(x), y, NUM_CLASSES, unit_dim=-1)
    with SelectivityRegularizer(model, NUM_CLASSES, alpha=-1.0, unit_dim=-1) as reg:
        model(x)
        torch.testing.assert_close(reg(y), expected)


def test_a_forward_through_a_part_of_the_model_starts_anew(batch):
    x, y = batch
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU()), nn.ReLU())
    with SelectivityRegularizer(model, NUM_CLASSES, alpha=-1.0) as reg:
        for _ in range(3):
            loss = model[1](model[0](x)).sum() + reg(y)
            loss.backward()
            assert list(reg.index) == ["0.1", "1"]


def test_an_attachment_that_fails_is_undone():
    class Stubborn(nn.Linear):
        def register_forward_hook(self, *args, **kwargs):
            raise RuntimeError("no hooks here")

    model = nn.Sequential(nn.ReLU(), Stubborn(2, 2))
    with pytest.raises(RuntimeError, match="no hooks here"):
        SelectivityRegularizer(model, 2, alpha=1.0, layers=["0", "1"])
    assert type(model[0]) is nn.ReLU
    assert "_selkern_tap" not in model[0].__dict__


def test_a_layer_without_units_is_named():
    model = nn.Sequential(nn.ReLU())
    with (
        SelectivityRegularizer(model, 2, alpha=1.0),
        pytest.raises(ValueError, match=r"layer '0'.*left out of layers=.*2 to 5 axes"),
    ):
        model(torch.tensor(1.0))


def test_layers_that_differ_in_samples_are_named(batch):
    x, y = batch

    class Halves(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.ReLU()
            self.second = nn.ReLU()

        def forward(self, x):
            return self.second(self.first(x)[:4])

    model = Halves()
    with SelectivityRegularizer(model, NUM_CLASSES, alpha=1.0) as reg:
        model(x)
        with pytest.raises(ValueError, match=r"\['second'\] must have 8 samples"):
            reg(y)
