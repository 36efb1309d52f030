"""What is allocated, what the graph keeps, and when it is freed."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from cases import LABELS, LAYOUTS, uniform
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

import selkern

SHAPE = (16, 64, 32, 32)
LABEL = LABELS["random"](16, 10)
# What a result as small as [N, C] may cost, next to maps that are 1024 times as large.
SMALL = 64 * 1024


def allocations(function: Callable[[], object]) -> list[int]:
    """Return the sizes in bytes of all blocks torch allocates on the CPU during a call."""
    function()
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        kept = function()
    del kept
    events = profile.profiler.kineto_results.events()
    return [event.nbytes() for event in events if event.name() == "[memory]" and event.nbytes() > 0]


@contextmanager
def saved() -> Iterator[list[Tensor]]:
    tensors: list[Tensor] = []
    with saved_tensors_hooks(lambda x: tensors.append(x) or x, lambda x: x):
        yield tensors


READABLE: dict[str, Callable[[], Tensor]] = {
    "contiguous": lambda: uniform(SHAPE, torch.float32),
    "channels_last": lambda: uniform(SHAPE, torch.float32, "units_last"),
    "channels_last_3d": lambda: uniform((16, 64, 4, 16, 16), torch.float32, "units_last"),
    "tokens": lambda: uniform((16, 64, 1024), torch.float32, "units_last"),
    "without_first_unit": lambda: uniform(SHAPE, torch.float32, "without_first_unit"),
    "every_second_sample": lambda: uniform(SHAPE, torch.float32, "every_second_sample"),
    "rows": lambda: uniform((16, 16384), torch.float32),
}


def test_the_measure_sees_a_copy() -> None:
    x = uniform(SHAPE, torch.float32)
    assert sum(allocations(lambda: x.clone())) == x.nbytes
    hidden = LAYOUTS["last_axes_swapped"](x)
    assert max(allocations(lambda: selkern.spatial_mean(hidden))) == x.nbytes


@pytest.mark.parametrize("layout", READABLE)
class TestNoCopyOfTheInput:
    def test_spatial_mean(self, layout: str) -> None:
        x = READABLE[layout]()
        result = x.shape[0] * x.shape[1] * 4
        assert sum(allocations(lambda: selkern.spatial_mean(x))) <= result + SMALL

    def test_relu_with_mean(self, layout: str) -> None:
        x = READABLE[layout]()
        result = x.numel() * 4 + x.shape[0] * x.shape[1] * 4
        assert sum(allocations(lambda: selkern.relu_with_mean(x))) <= result + SMALL

    def test_selectivity(self, layout: str) -> None:
        x = READABLE[layout]()
        per_unit = 12 * x.shape[1] * 10 * 4
        means = x.shape[0] * x.shape[1] * 4 if x.ndim > 2 else 0
        for function in (selkern.class_means, selkern.selectivity_index, selkern.mean_selectivity):
            allocated = sum(allocations(lambda function=function: function(x, LABEL, 10)))
            assert allocated <= means + per_unit + SMALL


def test_tokens_are_not_copied() -> None:
    x = uniform((16, 1024, 64), torch.float32)
    for function in (selkern.spatial_mean, selkern.relu_with_mean):
        largest = x.nbytes if function is selkern.relu_with_mean else SMALL
        assert max(allocations(lambda f=function: f(x, unit_dim=-1))) <= largest
    allocated = allocations(lambda: selkern.mean_selectivity(x, LABEL, 10, unit_dim=-1))
    assert max(allocated) <= SMALL


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_the_backward_of_relu_with_mean_allocates_the_gradient_alone(
    memory_format: torch.memory_format,
) -> None:
    x = uniform(SHAPE, torch.float32).contiguous(memory_format=memory_format).requires_grad_()
    y, mean = selkern.relu_with_mean(x)
    cotangents = [torch.rand_like(y), torch.rand_like(mean)]

    def backward() -> tuple[Tensor, ...]:
        return torch.autograd.grad([y, mean], x, cotangents, retain_graph=True)

    assert sum(allocations(backward)) <= x.nbytes + SMALL


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_gradients_of_means_take_no_memory_inside_a_graph(
    memory_format: torch.memory_format,
) -> None:
    leaf = torch.ones((), requires_grad=True)
    x = uniform(SHAPE, torch.float32).contiguous(memory_format=memory_format)
    activation = leaf.expand(SHAPE) + x
    for loss in (
        selkern.spatial_mean(activation).sum(),
        selkern.mean_selectivity([activation], LABEL, 10),
        selkern.selectivity_index(activation, LABEL, 10).sum(),
    ):
        allocated = allocations(
            lambda loss=loss: torch.autograd.grad(loss, leaf, retain_graph=True)
        )
        assert sum(allocated) <= 4 * SMALL


# --------------------------------------------------------------------------- what is saved


@pytest.mark.parametrize(
    "function",
    [
        lambda x: selkern.spatial_mean(x).sum(),
        lambda x: selkern.class_means(x, LABEL, 10)[0].sum(),
        lambda x: selkern.selectivity_index(x, LABEL, 10).sum(),
        lambda x: selkern.mean_selectivity([x, x], LABEL, 10),
    ],
    ids=["spatial_mean", "class_means", "selectivity_index", "mean_selectivity"],
)
class TestTheLossSavesNoActivation:
    def test_saved_tensors_are_small(self, function: Callable[[Tensor], Tensor]) -> None:
        x = uniform(SHAPE, torch.float32).requires_grad_()
        with saved() as tensors:
            function(x)
        assert sum(tensor.untyped_storage().nbytes() for tensor in tensors) <= SMALL

    def test_the_activation_is_freed_before_the_loss(
        self, function: Callable[[Tensor], Tensor]
    ) -> None:
        x = uniform(SHAPE, torch.float32).requires_grad_()
        activation = x + 1
        loss, freed = function(activation), weakref.ref(activation)
        storage = weakref.ref(activation.untyped_storage())
        del activation
        assert freed() is None
        assert storage() is None
        loss.backward()
        assert x.grad.any()


def test_rows_are_not_saved_either() -> None:
    x = uniform((256, 4096), torch.float32).requires_grad_()
    with saved() as tensors:
        selkern.mean_selectivity(x, LABELS["random"](256, 10), 10)
    assert max(tensor.untyped_storage().nbytes() for tensor in tensors) <= 4096 * 8


def test_relu_with_mean_saves_its_output_alone() -> None:
    x = uniform(SHAPE, torch.float32).requires_grad_()
    with saved() as tensors:
        y, _ = selkern.relu_with_mean(x)
    assert [tensor.data_ptr() for tensor in tensors] == [y.data_ptr()]


# --------------------------------------------------------------------------- what is freed


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_graphs_are_freed_without_the_garbage_collector(no_collector: None) -> None:
    x = uniform((4, 3, 8, 8), torch.float32).requires_grad_()
    labels = LABELS["random"](4, 3)

    def attack_step() -> tuple[list[weakref.ref], Tensor]:
        y, mean = selkern.relu_with_mean(x * 2)
        index = selkern.selectivity_index(y, labels, 3)
        means, _ = selkern.class_means(y, labels, 3)
        loss = selkern.mean_selectivity([y, mean], labels, 3) + index.sum() + means.sum()
        (gradient,) = torch.autograd.grad(loss + selkern.spatial_mean(y).sum(), x)
        return [weakref.ref(tensor) for tensor in (y, mean, index, means, loss)], gradient

    alive, gradient = attack_step()
    assert [tensor() for tensor in alive] == [None] * 5
    assert gradient.any()


def test_graphs_of_second_derivatives_are_freed(no_collector: None) -> None:
    x = uniform((4, 3, 8, 8), torch.float64).requires_grad_()
    labels = LABELS["random"](4, 3)

    def penalty() -> list[weakref.ref]:
        y, mean = selkern.relu_with_mean(x * 2)
        loss = selkern.mean_selectivity([y, mean], labels, 3)
        (slope,) = torch.autograd.grad(loss, x, create_graph=True)
        (second,) = torch.autograd.grad(slope.square().sum(), x)
        return [weakref.ref(tensor) for tensor in (y, mean, loss, slope, second)]

    assert [tensor() for tensor in penalty()] == [None] * 5


def test_steps_of_training_do_not_add_up() -> None:
    model = nn.Sequential(nn.Linear(32, 64), nn.BatchNorm1d(64))
    x, labels = torch.rand(40, 32), LABELS["random"](40, 5)

    def live_bytes() -> int:
        gc.collect()
        return sum(
            item.untyped_storage().nbytes() for item in gc.get_objects() if type(item) is Tensor
        )

    def step() -> None:
        y, mean = selkern.relu_with_mean(model(x))
        (y.square().mean() + selkern.mean_selectivity([mean], labels, 5)).backward()

    step()
    before = live_bytes()
    for _ in range(5):
        step()
    assert live_bytes() == before
