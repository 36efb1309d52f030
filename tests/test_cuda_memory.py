"""What a GPU holds: memory, very large tensors, layouts, autocast."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from cases import (
    DTYPES,
    NUM_CLASSES,
    assert_gradient,
    assert_value,
    case_name,
    normal,
    uniform,
)
from gpu import CUDA, NEEDS_GPU
from torch import Tensor

import selkern
from selkern import reference

pytestmark = NEEDS_GPU

LABELS = torch.arange(24) % NUM_CLASSES

# ------------------------------------------------------------------------------------ memory

LAYER = (64, 64, 56, 56)
SMALL = 2**20


def peak_of(function: Callable[[], object]) -> int:
    """Return the most bytes that a call holds beyond those that were there before."""
    function()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    function()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


@pytest.mark.parametrize("layout", ["contiguous", "units_last"])
class TestMemory:
    def test_relu_with_mean_takes_what_relu_takes(self, layout: str) -> None:
        x = normal(LAYER, torch.float32, layout, CUDA).requires_grad_()
        cotangent = torch.rand_like(x)

        def plain() -> tuple[Tensor, ...]:
            return torch.autograd.grad(torch.relu(x), x, cotangent)

        def fused() -> tuple[Tensor, ...]:
            y, mean = selkern.relu_with_mean(x)
            return torch.autograd.grad([y, mean.sum()], x, [cotangent, None])

        assert peak_of(fused) <= peak_of(plain) + SMALL

    def test_the_loss_keeps_no_activation(self, layout: str) -> None:
        x = uniform(LAYER, torch.float32, layout, CUDA).requires_grad_()
        labels = torch.arange(LAYER[0], device=CUDA) % 10
        activation = x * 1
        before = torch.cuda.memory_allocated()
        loss = selkern.mean_selectivity([activation], labels, 10)
        assert torch.cuda.memory_allocated() - before <= SMALL
        assert peak_of(lambda a=activation: selkern.mean_selectivity([a], labels, 10)) <= SMALL
        held = torch.cuda.memory_allocated()
        del activation
        # x * 1 keeps nothing of the activation either.
        assert torch.cuda.memory_allocated() <= held - x.nbytes
        loss.backward()
        assert x.grad.any()


@pytest.mark.parametrize("layout", ["contiguous", "units_last"])
def test_more_than_two_to_the_31_elements(layout: str) -> None:
    if torch.cuda.mem_get_info()[0] < 40 * 2**30:
        pytest.skip("less than 40 GiB of free memory")
    units, positions = 33, 2**26
    memory = torch.zeros(units * positions, dtype=torch.float16, device=CUDA)
    x = memory.view(1, units, positions)
    if layout == "units_last":
        x = memory.view(1, positions, units).movedim(-1, 1)
    x[:, -1] = 2.0
    x[:, 0, -1] = -1.0
    x.requires_grad_()
    expected = torch.zeros(1, units, device=CUDA)
    expected[:, -1] = 2.0
    y, mean = selkern.relu_with_mean(x)
    torch.testing.assert_close(mean, expected)
    assert y.stride()[1:] == x.stride()[1:]
    assert (y[:, -1] == 2.0).all()
    assert not y[:, :-1].any()
    ones = torch.ones((), dtype=torch.float16, device=CUDA).expand_as(y)
    (gradient,) = torch.autograd.grad(y, x, ones)
    del y
    assert (gradient[:, -1] == 1.0).all()
    assert not gradient[:, :-1].any()
    del gradient
    x = x.detach()
    expected[:, 0] = -1.0 / positions
    torch.testing.assert_close(selkern.spatial_mean(x), expected)


@pytest.mark.parametrize(("samples", "units"), [(512, 33), (100_000, 3), (1, 1)])
def test_seventy_thousand_classes(samples: int, units: int) -> None:
    generator = torch.Generator().manual_seed(samples)
    labels = torch.randint(70_000, (samples,), generator=generator)
    labels[::7] = -100
    x = torch.rand(samples, units, generator=generator)
    leaf, exact = x.to(CUDA).requires_grad_(), x.double().requires_grad_()
    means, counts = selkern.class_means(leaf, labels.to(CUDA), 70_000)
    exact_means, exact_counts = reference.class_means(exact, labels, 70_000)
    assert torch.equal(counts.cpu(), exact_counts)
    assert_value(means.detach().cpu(), exact_means.detach())
    loss = selkern.mean_selectivity([leaf], labels.to(CUDA), 70_000)
    exact_loss = reference.mean_selectivity([exact], labels, 70_000)
    assert_value(loss.detach().cpu(), exact_loss.detach())
    (gradient,) = torch.autograd.grad(loss + means.sum(), leaf)
    (exact_gradient,) = torch.autograd.grad(exact_loss + exact_means.sum(), exact)
    assert_gradient(gradient.cpu(), exact_gradient)


# ------------------------------------------------------------------------ layouts and dtypes


@pytest.mark.parametrize(
    ("shape", "memory_format"),
    [
        ((6, 5, 9, 7), torch.contiguous_format),
        ((6, 5, 9, 7), torch.channels_last),
        ((6, 8, 3, 4, 5), torch.channels_last_3d),
    ],
    ids=str,
)
def test_outputs_and_gradients_keep_the_memory_format(
    shape: tuple[int, ...], memory_format: torch.memory_format
) -> None:
    x = normal(shape, torch.float32, device=CUDA).to(memory_format=memory_format).requires_grad_()
    y, mean = selkern.relu_with_mean(x)
    (gradient,) = torch.autograd.grad([y, mean.sum()], x, [torch.rand_like(y), None])
    for tensor in (y, gradient):
        assert tensor.is_contiguous(memory_format=memory_format)
    assert torch.equal(y, x.relu())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=case_name)
def test_autocast_lowers_the_maps_but_not_the_sums(dtype: torch.dtype) -> None:
    x = uniform((24, 3, 8, 8), torch.float32, device=CUDA)
    convolution = torch.nn.Conv2d(3, 8, 3, device=CUDA)
    labels = LABELS.to(CUDA)
    with torch.autocast("cuda", dtype):
        y, mean = selkern.relu_with_mean(convolution(x))
        loss = selkern.mean_selectivity([y, mean], labels, NUM_CLASSES)
    assert [y.dtype, mean.dtype, loss.dtype] == [dtype, torch.float32, torch.float32]
    assert_value(mean.detach(), reference.spatial_mean(y.detach().double()))
    exact = [y.detach().double(), mean.detach().double()]
    assert_value(loss.detach(), reference.mean_selectivity(exact, labels, NUM_CLASSES))
    loss.backward()
    assert convolution.weight.grad.isfinite().all()
    assert convolution.weight.grad.any()


@pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
def test_empty_batches(dtype: torch.dtype) -> None:
    x = torch.zeros(0, 3, 4, 4, dtype=dtype, device=CUDA).requires_grad_()
    labels = torch.zeros(0, dtype=torch.int64, device=CUDA)
    y, mean = selkern.relu_with_mean(x)
    assert y.shape == x.shape
    assert mean.shape == selkern.spatial_mean(x).shape == (0, 3)
    means, counts = selkern.class_means(x, labels, 5)
    assert not means.any()
    assert not counts.any()
    index = selkern.selectivity_index(x, labels, 5)
    loss = selkern.mean_selectivity([x, mean], labels, 5)
    assert not index.any()
    assert loss == 0
    total = y.sum() + mean.sum() + means.sum() + index.sum() + loss
    assert torch.autograd.grad(total, x)[0].shape == x.shape
