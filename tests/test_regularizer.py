"""SelectivityRegularizer: the loss and its gradients, wherever the model runs."""

import pytest
import torch
from networks import (
    NAMES,
    NUM_CLASSES,
    Checkpointed,
    Network,
    assert_same_gradients,
    expected_step,
    gradients,
    plain_activations,
)
from torch import nn
from torch.nn import functional as F

from selkern import SelectivityRegularizer, reference


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


def test_a_compiled_checkpoint_needs_one_flag_of_torch(batch):
    flag = "skip_fwd_side_effects_in_bwd_under_checkpoint"
    if not hasattr(torch._dynamo.config, flag):
        pytest.skip(f"this torch has no {flag}")
    torch.manual_seed(0)
    model = Checkpointed()
    expected, expected_gradients = expected_step(model, batch)
    x, y = batch
    torch._dynamo.reset()
    with (
        torch._dynamo.config.patch({flag: True}),
        SelectivityRegularizer(model, NUM_CLASSES, alpha=-2.0) as reg,
    ):
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        logits = compiled(x)
        penalty = reg(y)
        torch.testing.assert_close(penalty, expected)
        assert_same_gradients(
            gradients(F.cross_entropy(logits, y) + penalty, model), expected_gradients
        )


def test_reentrant_checkpointing_is_refused_by_name(batch):
    torch.manual_seed(0)
    model = Checkpointed()
    model.use_reentrant = True
    with SelectivityRegularizer(model, NUM_CLASSES, alpha=-2.0) as reg:
        model(batch[0])
        with pytest.raises(RuntimeError, match=r"layer1\.0\.relu.*use_reentrant=False"):
            reg(batch[1])


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


def test_the_backend_stays(network):
    with SelectivityRegularizer(network, NUM_CLASSES, alpha=1.0, backend="reference") as reg:
        with pytest.raises(AttributeError):
            reg.backend = "selkern"
        assert reg.backend == "reference"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": 3}, TypeError, "model must be a torch.nn.Module, got int"),
        ({"num_classes": 0}, ValueError, "num_classes must be at least 1 and fit 64 bits, got 0"),
        ({"num_classes": True}, TypeError, "num_classes must be an integer, got bool"),
        ({"alpha": "2"}, TypeError, "alpha must be a real number, got str"),
        ({"alpha": float("nan")}, ValueError, "alpha must be finite, got nan"),
        ({"alpha": 10**400}, ValueError, "alpha must be finite, got 1000"),
        ({"unit_dim": 0}, ValueError, "unit_dim must not be 0, the axis of the samples"),
        ({"layers": 5}, TypeError, "layers must be names, globs or modules, got int"),
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


@pytest.mark.parametrize("backend", ["selkern", "reference"])
def test_labels_are_those_of_the_last_forward_alone(network, batch, backend):
    x, y = batch
    with SelectivityRegularizer(network, NUM_CLASSES, alpha=1.0, backend=backend) as reg:
        network(x)
        network(x[:3])
        message = r"must have shape \[3\], as the last forward had 3 samples, got \[8\]: call"
        with pytest.raises(ValueError, match=message):
            reg(y)
