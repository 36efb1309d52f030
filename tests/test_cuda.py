"""What only a GPU shows: streams, graphs, launches, and what is refused.

Values over dtypes and layouts are compared with float64 in test_kernels.py.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from cases import (
    DTYPES,
    NUM_CLASSES,
    OPERATORS,
    VALUE_TOLERANCE,
    all_results,
    assert_same_bits,
    case_name,
    cotangent_for,
    normal,
    uniform,
)
from gpu import CUDA, NEEDS_GPU, no_synchronisation
from torch import Tensor

import selkern

pytestmark = NEEDS_GPU

SHAPE = (24, 19, 9, 7)
LABELS = torch.arange(24) % NUM_CLASSES
operators = pytest.mark.parametrize("name", OPERATORS)


class Step:
    """One operator, forward and backward, with inputs that stay where they are."""

    def __init__(self, name: str, device: torch.device = CUDA, seed: int = 0) -> None:
        self.operator = OPERATORS[name]
        self.x = torch.zeros(SHAPE, device=device).requires_grad_()
        self.labels = torch.zeros(SHAPE[0], dtype=torch.int64, device=device)
        self.renew(seed)
        output = self.operator(selkern, self.x.detach(), self.labels, NUM_CLASSES)
        self.cotangent = cotangent_for(output)

    def renew(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.x.copy_(torch.rand(SHAPE, generator=generator))
        self.labels.copy_(torch.randint(NUM_CLASSES, SHAPE[:1], generator=generator))

    def __call__(self) -> list[Tensor]:
        output = self.operator(selkern, self.x, self.labels, NUM_CLASSES)
        (gradient,) = torch.autograd.grad(output, self.x, self.cotangent)
        return [output.detach(), gradient]


# -------------------------------------------------------------------------- host and streams


def test_the_debug_mode_sees_a_synchronisation() -> None:
    x = torch.ones(3, device=CUDA)
    with no_synchronisation(), pytest.raises(RuntimeError, match="synchroniz"):
        x.sum().item()


@operators
def test_the_host_never_waits(name: str) -> None:
    step = Step(name)
    step()
    with no_synchronisation():
        step()


SLEEP = 500_000_000  # cycles: a quarter of a second


@operators
def test_work_follows_what_its_own_stream_does_before(name: str) -> None:
    step, expected_step = Step(name, seed=1), Step(name, seed=2)
    expected = expected_step()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
        torch.cuda._sleep(SLEEP)
        # A kernel on another stream would read the inputs before this.
        with torch.no_grad():
            step.x.copy_(expected_step.x)
        step.labels.copy_(expected_step.labels)
        actual = step()
    stream.synchronize()
    assert_same_bits(actual, expected)


@operators
def test_another_stream_is_not_waited_for(name: str) -> None:
    step = Step(name)
    stream, done = torch.cuda.Stream(), torch.cuda.Event()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.synchronize()
    torch.cuda._sleep(SLEEP)
    with torch.cuda.stream(stream):
        step()
        done.record()
    done.synchronize()
    assert not torch.cuda.current_stream().query()
    torch.cuda.synchronize()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU")
@operators
def test_tensors_of_another_gpu_are_computed_there(name: str) -> None:
    expected = Step(name)()
    actual = Step(name, torch.device("cuda", 1))()
    assert torch.cuda.current_device() == 0
    assert all(result.device.index == 1 for result in actual)
    assert_same_bits([result.to(CUDA) for result in actual], expected)


# ------------------------------------------------------------------------------------ graphs


@operators
def test_a_graph_can_be_replayed_with_new_data(name: str) -> None:
    step = Step(name)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        actual = step()
    for seed in (3, 4, 5, 3):
        step.renew(seed)
        graph.replay()
        graph.replay()
        torch.cuda.synchronize()
        assert_same_bits(actual, Step(name, seed=seed)())


# ------------------------------------------------------------------------------- determinism


@pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
@pytest.mark.parametrize("layout", ["contiguous", "units_last", "every_second_sample"])
def test_the_same_bits_from_run_to_run(layout: str, dtype: torch.dtype) -> None:
    x = normal((64, 37, 19, 17), dtype, layout, CUDA)
    expected = all_results(x)
    for _ in range(20):
        assert_same_bits(all_results(x), expected)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        actual = all_results(x)
    stream.synchronize()
    assert_same_bits(actual, expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
def test_cpu_and_gpu_agree(dtype: torch.dtype) -> None:
    x = uniform((40, 23, 11, 6), dtype)
    is_float64 = dtype == torch.float64
    tolerance = {"rtol": 1e-9 if is_float64 else 1e-5, "atol": 2 * VALUE_TOLERANCE[dtype]}
    for actual, expected in zip(all_results(x.to(CUDA)), all_results(x), strict=True):
        assert actual.is_cuda
        if expected.dtype != x.dtype or dtype in (torch.float32, torch.float64):
            torch.testing.assert_close(actual.cpu(), expected, **tolerance)
        else:
            torch.testing.assert_close(actual.cpu(), expected, rtol=1e-2, atol=1e-6)


# ----------------------------------------------------------------------- labels and devices

BAD_LABELS = {
    "too large": NUM_CLASSES,
    "negative": -1,
    "largest": 2**62,
    "smallest": -(2**63),
}


@pytest.mark.parametrize("label", BAD_LABELS.values(), ids=BAD_LABELS)
def test_a_bad_label_gives_nan_and_does_no_harm(label: int) -> None:
    labels = LABELS.clone()
    labels[5] = label
    labels = labels.to(CUDA)
    good = uniform(SHAPE, torch.float32, device=CUDA)
    expected = selkern.mean_selectivity([good], LABELS.to(CUDA), NUM_CLASSES)
    for function in (
        lambda x: selkern.class_means(x, labels, NUM_CLASSES)[0],
        lambda x: selkern.selectivity_index(x, labels, NUM_CLASSES),
        lambda x: selkern.mean_selectivity([x, x.mean((2, 3))], labels, NUM_CLASSES),
    ):
        x = good.clone().requires_grad_()
        output = function(x)
        assert output.isnan().all()
        (gradient,) = torch.autograd.grad(output.sum(), x)
        assert gradient[5].isnan().all()
    torch.cuda.synchronize()
    assert torch.equal(selkern.mean_selectivity([good], LABELS.to(CUDA), NUM_CLASSES), expected)


def test_bad_int32_labels_give_nan() -> None:
    labels = LABELS.int()
    labels[0] = -(2**31)
    x = uniform(SHAPE, torch.float64, device=CUDA)
    assert selkern.mean_selectivity([x], labels.to(CUDA), NUM_CLASSES).isnan()


def test_checking_names_the_first_bad_label(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELKERN_CHECK", "1")
    labels = LABELS.clone()
    labels[[5, 7]] = torch.tensor([17, 18])
    x = uniform(SHAPE, torch.float32, device=CUDA)
    for function in (selkern.class_means, selkern.selectivity_index, selkern.mean_selectivity):
        with pytest.raises(ValueError, match=r"labels must be in \[0, 4\).* got 17 at row 5"):
            function(x, labels.to(CUDA), NUM_CLASSES)
        function(x, LABELS.to(CUDA), NUM_CLASSES)


def test_mixed_devices_are_refused() -> None:
    x = uniform(SHAPE, torch.float32)
    for function in (selkern.class_means, selkern.selectivity_index, selkern.mean_selectivity):
        with pytest.raises(ValueError, match=r"labels must be on cuda:0 .* got cpu"):
            function(x.to(CUDA), LABELS, NUM_CLASSES)
        with pytest.raises(ValueError, match=r"labels must be on cpu .* got cuda:0"):
            function(x, LABELS.to(CUDA), NUM_CLASSES)
    with pytest.raises(ValueError, match=r"activations\[1\] must be on cuda:0 .* got cpu"):
        selkern.mean_selectivity([x.to(CUDA), x], LABELS.to(CUDA), NUM_CLASSES)
    means, counts = selkern.class_means(x.to(CUDA), LABELS.to(CUDA), NUM_CLASSES)
    with pytest.raises(ValueError, match=r"counts must be on cuda:0 .* got cpu"):
        selkern.selectivity_index_from_means(means, counts.cpu())


# ---------------------------------------------------------------------------------- launches


def kernels_of(function: Callable[[], object]) -> list[str]:
    """Return the names of the kernels that a call launches."""
    function()
    torch.cuda.synchronize()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        function()
        torch.cuda.synchronize()
    on_gpu = torch.autograd.DeviceType.CUDA
    return [event.name for event in profile.events() if event.device_type == on_gpu]


def ours(names: list[str]) -> list[str]:
    return [name for name in names if "selkern" in name]


@pytest.fixture(scope="module")
def profiler() -> None:
    x = torch.ones(5, device=CUDA)
    if not kernels_of(lambda: x + x):
        pytest.skip("the profiler sees no kernels here")


@pytest.mark.usefixtures("profiler")
class TestLaunches:
    def test_of_mean_selectivity(self) -> None:
        labels = LABELS.to(CUDA)
        leaves = [
            uniform((24, 3 + layer, 5, 2), torch.float32, device=CUDA).requires_grad_()
            for layer in range(20)
        ]
        layers = [leaf * 1 for leaf in leaves]
        layers += [layer.mean((2, 3)) for layer in layers]

        def forward() -> Tensor:
            return selkern.mean_selectivity(layers, labels, NUM_CLASSES)

        names = kernels_of(forward)
        assert 1 <= len(names) <= 2
        assert ours(names) == names
        loss = forward()
        one = torch.ones_like(loss)
        names = kernels_of(lambda: torch.autograd.grad(loss, layers, one, retain_graph=True))
        assert len(ours(names)) == 1

    def test_of_relu_with_mean(self) -> None:
        x = normal((24, 32, 8, 8), torch.float32, device=CUDA).requires_grad_()
        y, mean = selkern.relu_with_mean(x)
        names = kernels_of(lambda: selkern.relu_with_mean(x))
        assert 1 <= len(names) <= 2
        assert ours(names) == names
        cotangents = [torch.rand_like(y), torch.rand_like(mean)]
        names = kernels_of(lambda: torch.autograd.grad([y, mean], x, cotangents, retain_graph=True))
        assert len(ours(names)) == 1
        assert ours(names) == names
