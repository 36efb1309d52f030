"""On a GPU: torch.compile, transforms, torch's own checks, and the regularizer in training."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from cases import LABELS, NUM_CLASSES, OPERATORS, SPARSE_LABELS, uniform
from gpu import CUDA, NEEDS_GPU
from networks import NAMES, Network
from test_compile import TRANSFORMS, _Network, everything, value_and_gradient
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn import functional as F

import selkern
from selkern import SelectivityRegularizer, reference

pytestmark = [NEEDS_GPU, pytest.mark.usefixtures("fresh_compiler")]


def maps(samples: int, *positions: int, layout: str = "contiguous") -> Tensor:
    return uniform((samples, 5, *(positions or (4, 3))), torch.float32, layout, CUDA)


# ----------------------------------------------------------------------------------- compile


@pytest.mark.parametrize("layout", ["contiguous", "units_last"])
def test_static_shapes(layout: str) -> None:
    labels = SPARSE_LABELS.to(CUDA)
    x = maps(8, layout=layout)
    compiled = torch.compile(partial(everything, selkern), fullgraph=True, dynamic=False)
    expected = value_and_gradient(partial(everything, reference), x.double(), labels)
    actual = value_and_gradient(compiled, x, labels)
    assert expected[1].abs().max() > 0
    torch.testing.assert_close(actual[0].double(), expected[0], rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(actual[1].double(), expected[1], rtol=1e-5, atol=1e-7)


def test_dynamic_shapes_compile_once() -> None:
    compiled = torch.compile(partial(everything, selkern), fullgraph=True, dynamic=True)
    for samples, positions in [(8, (4, 3)), (9, (5, 7)), (13, (2, 6))]:
        labels = LABELS["partly_ignored"](samples, NUM_CLASSES).to(CUDA)
        x = maps(samples, *positions)
        expected = value_and_gradient(partial(everything, selkern), x, labels)
        with torch.compiler.set_stance("default" if samples == 8 else "fail_on_recompile"):
            actual = value_and_gradient(compiled, x, labels)
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["grad", "vmap_of_grad", "grad_of_grad"])
def test_transforms_eager_and_compiled(name: str) -> None:
    x = uniform((2, 8, 3, 2, 2), torch.float64, device=CUDA)
    labels, transform = SPARSE_LABELS.to(CUDA), TRANSFORMS[name]
    function = transform(lambda x: everything(selkern, x, labels))
    expected = transform(lambda x: everything(reference, x, labels))(x)
    assert expected.abs().max() > 0
    torch.testing.assert_close(function(x), expected, rtol=1e-9, atol=1e-12)
    # What inductor makes of it, which takes long, is the same for all.
    backend = "inductor" if name == "grad" else "aot_eager"
    compiled = torch.compile(function, fullgraph=True, backend=backend)
    torch.testing.assert_close(compiled(x), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", OPERATORS)
def test_vmap_of_grad_of_every_operator(name: str) -> None:
    x, labels = uniform((3, 8, 3, 2, 2), torch.float64, device=CUDA), SPARSE_LABELS.to(CUDA)

    def loss(module: object, x: Tensor) -> Tensor:
        return OPERATORS[name](module, x, labels, NUM_CLASSES).sin().sum()

    actual = vmap(grad(partial(loss, selkern)))(x)
    expected = vmap(grad(partial(loss, reference)))(x)
    assert expected.abs().max() > 0
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("checkpointed", [False, True], ids=["plain", "checkpointed"])
def test_a_compiled_network(checkpointed: bool) -> None:
    network = _Network(checkpointed).to(CUDA)
    x, labels = maps(8, 6, 6), SPARSE_LABELS.to(CUDA)

    def gradients(function: Callable[..., Tensor]) -> list[Tensor]:
        network.zero_grad()
        loss = function(x, labels)
        loss.backward()
        return [loss.detach(), *(p.grad.clone() for p in network.parameters())]

    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        expected = gradients(network)
        actual = gradients(torch.compile(network, fullgraph=True))
    assert all(gradient.abs().max() > 0 for gradient in expected[1:])
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-5)


def test_opcheck() -> None:
    pytest.importorskip("expecttest", reason="torch.library.opcheck needs expecttest")
    ops, opcheck, labels = torch.ops.selkern, torch.library.opcheck, SPARSE_LABELS.to(CUDA)
    for layout in ("contiguous", "units_last", "samples_last"):
        x = uniform((8, 3, 4, 5), torch.float32, layout, CUDA) - 0.5
        y, mean = ops.relu_with_mean(x)
        opcheck(ops.spatial_mean.default, (x,))
        opcheck(ops.relu_with_mean.default, (x,))
        opcheck(ops.relu_with_mean_.default, (x.clone(),))
        opcheck(ops.relu_with_mean_backward.default, (y, mean, y))
        opcheck(ops.relu_with_mean_backward.default, (None, mean, y))
    opcheck(ops.class_means.default, (mean, labels, NUM_CLASSES, -100))
    means, counts = ops.class_means(mean, labels, NUM_CLASSES, -100)
    opcheck(ops.class_means_backward.default, (means, labels, counts, -100, torch.float32))
    arguments = ([y, mean], labels, NUM_CLASSES, 1e-6, -100)
    opcheck(ops.selectivity.default, arguments)
    loss, _, _, maximum, rest, winner, counts = ops.selectivity(*arguments)
    saved = (maximum, rest, winner, counts, labels, [3, 3], [20, 1], 1e-6, -100, torch.float32)
    opcheck(ops.selectivity_backward.default, (loss, None, None, None, *saved))


# ------------------------------------------------------------------------------- regularizer


class Training:
    """A small convolutional network and its regularized step, on inputs that stay in place."""

    def __init__(self, model: nn.Module, backend: str = "selkern", compiled: bool = False) -> None:
        self.model = copy.deepcopy(model).to(CUDA)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9)
        self.regularizer = SelectivityRegularizer(
            self.model, NUM_CLASSES, alpha=-2.0, backend=backend
        )
        self.objective = torch.compile(self.loss, fullgraph=True) if compiled else self.loss
        self.x = torch.zeros(8, 3, 6, 6, device=CUDA)
        self.y = torch.zeros(8, dtype=torch.int64, device=CUDA)

    def renew(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.x.copy_(torch.rand(self.x.shape, generator=generator))
        self.y.copy_(torch.randperm(8, generator=generator) % NUM_CLASSES)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.model(x), y) + self.regularizer(y)

    def step(self) -> Tensor:
        loss = self.objective(self.x, self.y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def weights(self) -> list[Tensor]:
        return [parameter.detach().clone() for parameter in self.model.parameters()]


SEEDS = range(6)


def losses_of(training: Training, step: Callable[[], Tensor]) -> list[Tensor]:
    losses = []
    for seed in SEEDS:
        training.renew(seed)
        losses.append(step().clone())
    return losses


def captured(training: Training) -> Callable[[], Tensor]:
    """Capture the step in a graph, and put the weights and momenta back as they were."""
    before = copy.deepcopy(training.model.state_dict())
    training.renew(0)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            training.step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = training.step()
    with torch.no_grad():
        for name, value in training.model.state_dict().items():
            value.copy_(before[name])
        for state in training.optimizer.state.values():
            state["momentum_buffer"].zero_()

    def replay() -> Tensor:
        graph.replay()
        return loss

    return replay


@pytest.mark.parametrize("inplace", [False, True], ids=["outplace", "inplace"])
@pytest.mark.parametrize("way", ["eager", "compiled", "captured"])
def test_training_with_the_regularizer(way: str, inplace: bool) -> None:
    torch.manual_seed(0)
    model = Network(inplace)
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        exact = Training(model, backend="reference")
        expected = losses_of(exact, exact.step)
        training = Training(model, compiled=way == "compiled")
        step = captured(training) if way == "captured" else training.step
        actual = losses_of(training, step)
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(training.weights(), exact.weights(), rtol=1e-2, atol=1e-3)
    index = training.regularizer.index
    assert list(index) == NAMES
    for name, value in index.items():
        assert value.device == torch.device("cuda", torch.cuda.current_device())
        assert value.dim() == 0
        torch.testing.assert_close(value, exact.regularizer.index[name], rtol=1e-2, atol=1e-3)
    training.regularizer.close()
    exact.regularizer.close()


def test_a_step_with_the_regularizer_never_waits() -> None:
    training = Training(Network())
    training.renew(0)
    training.step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        training.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    training.regularizer.close()


def test_a_step_in_mixed_precision() -> None:
    training = Training(Network())
    training.renew(0)
    with torch.autocast("cuda", torch.bfloat16):
        loss = training.loss(training.x, training.y)
    assert loss.dtype == torch.float32
    loss.backward()
    assert all(p.grad.isfinite().all() for p in training.model.parameters())
    training.regularizer.close()
