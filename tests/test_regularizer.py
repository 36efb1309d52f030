"""SelectivityRegularizer: which layers it takes, what it returns, and that the model is unharmed."""

import copy
import gc
import io
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from selkern import SelectivityRegularizer, reference

NUM_CLASSES = 4


class Block(nn.Module):
    """Calls one ReLU twice, as torchvision's residual blocks do."""

    def __init__(self, channels, inplace=False):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.relu = nn.ReLU(inplace=inplace)

    def forward(self, x):
        return self.relu(x + self.conv2(self.relu(self.conv1(x))))


class Network(nn.Module):
    def __init__(self, inplace=False):
        super().__init__()
        self.stem = nn.Conv2d(3, 5, 3, padding=1)
        self.relu = nn.ReLU(inplace=inplace)
        self.layer1 = nn.Sequential(Block(5, inplace))
        self.hidden = nn.Linear(5, 6)
        self.hidden_relu = nn.ReLU(inplace=inplace)
        self.head = nn.Linear(6, NUM_CLASSES)

    def forward(self, x):
        x = self.layer1(self.relu(self.stem(x)))
        return self.head(self.hidden_relu(self.hidden(x.mean((2, 3)))))


NAMES = ["relu", "layer1.0.relu", "layer1.0.relu_1", "hidden_relu"]


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Network()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(8, 3, 6, 6, generator=generator), torch.arange(8) % NUM_CLASSES


def plain_activations(model, x):
    """Return every ReLU output of an untouched copy of ``model``, in the order of NAMES."""
    stem = F.relu(model.stem(x))
    block = model.layer1[0]
    inner = F.relu(block.conv1(stem))
    outer = F.relu(stem + block.conv2(inner))
    hidden = F.relu(model.hidden(outer.mean((2, 3))))
    return [stem, inner, outer, hidden], model.head(hidden)


def gradients(loss, model):
    return torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)


def assert_same_gradients(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def expected_step(model, batch, alpha=-2.0):
    x, y = batch
    activations, logits = plain_activations(model, x)
    penalty = -alpha * reference.mean_selectivity(activations, y, NUM_CLASSES)
    return penalty, gradients(F.cross_entropy(logits, y) + penalty, model)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("backend", ["selkern", "reference"])
def test_loss_and_gradients_are_those_of_the_definition(batch, inplace, backend):
    torch.manual_seed(0)
    model = Network(inplace)
    expected, expected_gradients = expected_step(model, batch)
    x, y = batch
    with SelectivityRegularizer(model, NUM_CLASSES, alpha=-2.0, backend=backend) as reg:
        logits = model(x)
        penalty = reg(y)
        torch.testing.assert_close(penalty, expected)
        assert_same_gradients(
            gradients(F.cross_entropy(logits, y) + penalty, model), expected_gradients
        )


def test_index_names_every_call_and_is_detached(network, batch):
    x, y = batch
    activations, _ = plain_activations(network, x)
    with SelectivityRegularizer(network, NUM_CLASSES, alpha=1.0) as reg:
        network(x)
        penalty = reg(y)
    assert list(reg.index) == NAMES
    for name, activation in zip(NAMES, activations, strict=True):
        expected = reference.selectivity_index(activation, y, NUM_CLASSES).mean()
        torch.testing.assert_close(reg.index[name], expected.detach())
        assert reg.index[name].dim() == 0
        assert not reg.index[name].requires_grad
    torch.testing.assert_close(-torch.stack(list(reg.index.values())).mean(), penalty.detach())


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


def test_tokens_take_the_last_axis(batch):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.ReLU())
    x, y = batch[0][:, 0], batch[1]
    tokens = F.gelu(model[0](x))
    layers = ["1", "2"]
    with SelectivityRegularizer(model, NUM_CLASSES, alpha=-1.0, layers=layers, unit_dim=-1) as reg:
        model(x)
        penalty = reg(y)
    expected = reference.mean_selectivity([tokens, tokens.relu()], y, NUM_CLASSES, unit_dim=-1)
    torch.testing.assert_close(penalty, expected)


def test_alpha_may_change_between_steps(network, batch):
    x, y = batch
    with SelectivityRegularizer(network, NUM_CLASSES, alpha=1.0) as reg:
        network(x)
        before = reg(y)
        reg.alpha = -3.0
        torch.testing.assert_close(reg(y), -3.0 * before)


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
    with pytest.raises(RuntimeError, match="no activation was captured"):
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


def test_user_hooks_keep_working(network, batch):
    seen = []
    network.relu.register_forward_hook(lambda module, args, out: seen.append(out.detach().clone()))
    plain = network(batch[0])
    with SelectivityRegularizer(network, NUM_CLASSES, alpha=1.0):
        torch.testing.assert_close(network(batch[0]), plain)
    torch.testing.assert_close(seen[0], seen[1])


def test_in_place_relu_still_works_in_place():
    model = nn.Sequential(nn.Identity(), nn.ReLU(inplace=True))
    x = torch.randn(4, 3, 2, 2, requires_grad=True)
    with SelectivityRegularizer(model, 2, alpha=1.0) as reg:
        hidden = x * 1
        out = model(hidden)
        assert out.data_ptr() == hidden.data_ptr()
        torch.testing.assert_close(hidden, x.relu())
        (grad,) = torch.autograd.grad(out.sum() + reg(torch.tensor([0, 1, 0, 1])), x)
    total = x.relu().sum() - reference.mean_selectivity(x.relu(), torch.tensor([0, 1, 0, 1]), 2)
    torch.testing.assert_close(grad, torch.autograd.grad(total, x)[0])


def test_in_place_relu_of_a_view():
    model = nn.Sequential(nn.ReLU(inplace=True))
    x = torch.randn(4, 6, 2, 2, requires_grad=True)
    y = torch.tensor([0, 1, 0, 1])
    with SelectivityRegularizer(model, 2, alpha=1.0) as reg:
        out = model((x * 1)[:, :3])
        (grad,) = torch.autograd.grad(out.sum() + reg(y), x)
    part = x[:, :3].relu()
    total = part.sum() - reference.mean_selectivity(part, y, 2)
    torch.testing.assert_close(grad, torch.autograd.grad(total, x)[0])


def test_activations_changed_in_place_later_count_as_they_were(batch):
    model = nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.ReLU())
    x, y = batch[0][:, 0, 0], batch[1]
    with SelectivityRegularizer(model, NUM_CLASSES, alpha=-1.0, layers=["1", "2"]) as reg:
        out = model(x)
        hidden = F.gelu(model[0](x))
        expected = reference.mean_selectivity([hidden, hidden.relu()], y, NUM_CLASSES)
        out.detach().zero_()
        torch.testing.assert_close(reg(y), expected)


def test_last_forward_counts_and_an_attack_between_is_dropped(network, batch):
    x, y = batch
    expected, expected_gradients = expected_step(network, batch)
    with SelectivityRegularizer(network, NUM_CLASSES, alpha=-2.0) as reg:
        adversarial = x.clone()
        for _ in range(3):
            adversarial.requires_grad_()
            loss = F.cross_entropy(network(adversarial), y)
            (grad,) = torch.autograd.grad(loss, adversarial)
            adversarial = (adversarial + 0.01 * grad.sign()).detach()
        logits = network(x)
        penalty = reg(y)
        torch.testing.assert_close(penalty, expected)
        assert_same_gradients(
            gradients(F.cross_entropy(logits, y) + penalty, network), expected_gradients
        )


def test_graphs_of_earlier_forwards_are_freed(network, batch):
    x, _ = batch
    with SelectivityRegularizer(network, NUM_CLASSES, alpha=1.0):
        first = network(x)
        node = weakref.ref(first.grad_fn.next_functions[1][0])
        captured = weakref.ref(network.relu._selkern_tap.means[0])
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
        with pytest.raises(RuntimeError, match=r"no_grad.*torch\.compile"):
            reg(y)


def test_a_step_without_a_forward_says_so(network, batch):
    with (
        SelectivityRegularizer(network, NUM_CLASSES, alpha=1.0) as reg,
        pytest.raises(RuntimeError, match="call the model before the regularizer"),
    ):
        reg(batch[1])


class Checkpointed(Network):
    use_reentrant = False

    def forward(self, x):
        x = self.relu(self.stem(x))
        x = checkpoint(self.layer1, x, use_reentrant=self.use_reentrant)
        return self.head(self.hidden_relu(self.hidden(x.mean((2, 3)))))


@pytest.mark.parametrize("inplace", [False, True])
def test_checkpointing_recomputes_without_counting_twice(batch, inplace):
    torch.manual_seed(0)
    model = Checkpointed(inplace)
    expected, expected_gradients = expected_step(model, batch)
    x, y = batch
    with SelectivityRegularizer(model, NUM_CLASSES, alpha=-2.0) as reg:
        logits = model(x)
        penalty = reg(y)
        assert_same_gradients(
            gradients(F.cross_entropy(logits, y) + penalty, model), expected_gradients
        )
        torch.testing.assert_close(reg(y), expected)
        assert list(reg.index) == NAMES


def test_reentrant_checkpointing_is_refused_by_name(batch):
    torch.manual_seed(0)
    model = Checkpointed()
    model.use_reentrant = True
    with SelectivityRegularizer(model, NUM_CLASSES, alpha=-2.0) as reg:
        model(batch[0])
        with pytest.raises(RuntimeError, match=r"layer1\.0\.relu.*use_reentrant=False"):
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


@pytest.mark.parametrize("attached", ["before compile", "after compile", "after a compiled run"])
def test_compiled_models_give_the_same(batch, attached):
    torch.manual_seed(0)
    model = Network()
    expected, expected_gradients = expected_step(model, batch)
    x, y = batch
    torch._dynamo.reset()
    reg = SelectivityRegularizer(model, NUM_CLASSES, alpha=-2.0) if "before" in attached else None
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    if "run" in attached:
        compiled(x)
    if reg is None:
        reg = SelectivityRegularizer(compiled, NUM_CLASSES, alpha=-2.0)
    for _ in range(3):
        logits = compiled(x)
        penalty = reg(y)
        torch.testing.assert_close(penalty, expected)
        assert list(reg.index) == NAMES
        assert_same_gradients(
            gradients(F.cross_entropy(logits, y) + penalty, model), expected_gradients
        )
    reg.close()
    torch.testing.assert_close(compiled(x), model(x))


def test_a_compiled_training_step_contains_the_regularizer(network, batch):
    x, y = batch
    expected, expected_gradients = expected_step(network, batch)
    torch._dynamo.reset()
    with SelectivityRegularizer(network, NUM_CLASSES, alpha=-2.0) as reg:

        @torch.compile(fullgraph=True, backend="inductor")
        def objective(x, y):
            logits = network(x)
            penalty = reg(y)
            return F.cross_entropy(logits, y) + penalty, penalty

        for _ in range(2):
            loss, penalty = objective(x, y)
            torch.testing.assert_close(penalty, expected)
            assert_same_gradients(gradients(loss, network), expected_gradients)


def test_autocast_lowers_the_model_but_not_the_penalty(network, batch):
    x, y = batch
    with SelectivityRegularizer(network, NUM_CLASSES, alpha=-2.0) as reg:
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(x)
            penalty = reg(y)
        assert logits.dtype == torch.bfloat16
        assert penalty.dtype == torch.float32
        assert all(g is not None for g in gradients(logits.float().sum() + penalty, network))


def test_a_few_steps_of_training_lower_the_selectivity(network, batch):
    x, y = batch
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    with SelectivityRegularizer(network, NUM_CLASSES, alpha=-2.0) as reg:
        losses = []
        for _ in range(20):
            optimizer.zero_grad()
            network(x)
            penalty = reg(y)
            penalty.backward()
            optimizer.step()
            losses.append(penalty.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": 3}, TypeError, "model must be a torch.nn.Module, got int"),
        ({"num_classes": 0}, ValueError, "num_classes must be at least 1, got 0"),
        ({"num_classes": True}, TypeError, "num_classes must be an integer, got bool"),
        ({"alpha": "2"}, TypeError, "alpha must be a real number, got str"),
        ({"eps": -1.0}, ValueError, "eps must be finite and at least 0, got -1.0"),
        ({"backend": "numpy"}, ValueError, "backend must be one of"),
        ({"layers": ["rleu"]}, ValueError, "got 'rleu'; did you mean 'relu'"),
        ({"layers": ["layer9.*"]}, ValueError, "layers must name layers of the model"),
        ({"layers": []}, ValueError, "layers must select at least one layer, got none"),
        ({"layers": [3]}, TypeError, "layers must be names, globs or modules"),
        ({"layers": nn.ReLU()}, ValueError, "layers must be submodules of the model, got ReLU"),
        ({"model": nn.Linear(2, 2)}, ValueError, "F.relu cannot be seen: pass layers="),
    ],
)
def test_refusals_name_the_argument(network, change, error, message):
    arguments = {"model": network, "num_classes": NUM_CLASSES, "alpha": 1.0} | change
    with pytest.raises(error, match=message):
        SelectivityRegularizer(arguments.pop("model"), arguments.pop("num_classes"), **arguments)


def test_a_refused_regularizer_leaves_the_model_alone(network):
    with pytest.raises(ValueError, match="layers must name"):
        SelectivityRegularizer(network, NUM_CLASSES, alpha=1.0, layers=["relu", "nothing"])
    assert type(network.relu) is nn.ReLU


def test_a_layer_that_returns_no_tensor_is_named(batch):
    model = nn.Sequential(nn.LSTM(6, 5))
    with (
        SelectivityRegularizer(model, NUM_CLASSES, alpha=1.0, layers=["0"]),
        pytest.raises(TypeError, match="layer '0' must return a tensor.*tuple"),
    ):
        model(batch[0][:, 0])


def test_labels_must_fit_the_captured_batch(network, batch):
    with SelectivityRegularizer(network, NUM_CLASSES, alpha=1.0) as reg:
        network(batch[0])
        with pytest.raises(ValueError, match=r"labels must have shape \[8\], got \[3\]"):
            reg(batch[1][:3])
