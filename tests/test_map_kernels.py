"""Kernels of planar maps that share blocks and vectors: executed on the CPU, and on a GPU."""

from __future__ import annotations

import math

import pytest
import torch
from cases import DTYPES, assert_gradient, assert_value, case_name, cotangent_for, normal
from torch import Tensor

import selkern
from selkern import reference

STAGE_BYTES = 16384  # of the maps that a block takes, or twice as many of large inputs
MAPS = [(1, 1), (1, 2), (1, 3), (2, 2), (1, 5), (2, 4), (7, 7), (8, 8), (14, 14), (15, 17)]
MAPS += [(56, 56), (65, 67), (112, 112)]


def maps_of(size: tuple[int, int], dtype: torch.dtype, offset: int, device: torch.device) -> Tensor:
    """Return more maps than a block takes, so many elements after the start of the memory."""
    per_block = STAGE_BYTES // (math.prod(size) * dtype.itemsize)
    shape = (3, per_block // 2 + 1, *size)
    values = torch.full((offset + math.prod(shape),), torch.nan, dtype=dtype, device=device)
    maps = values[offset:].view(shape)
    return maps.copy_(normal(shape, dtype, device=device))


def assert_means(mean: Tensor, x: Tensor) -> None:
    exact = x.double()
    assert_value(mean, reference.spatial_mean(exact), reference.spatial_mean(exact.abs()))


@pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
@pytest.mark.parametrize("offset", [0, 1, 3, 7])
@pytest.mark.parametrize("size", MAPS, ids=case_name)
class TestPlanarMaps:
    def test_values(
        self, size: tuple, offset: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        x = maps_of(size, dtype, offset, device)
        assert_means(selkern.spatial_mean(x), x)
        y, mean = selkern.relu_with_mean(x)
        assert torch.equal(y, torch.relu(x))
        assert_means(mean, y)
        mean_in_place = selkern._pooling_autograd._ops.relu_with_mean_(x)
        assert torch.equal(x, y)
        assert_means(mean_in_place, y)

    def test_gradient(
        self, size: tuple, offset: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        x = maps_of(size, dtype, offset, device).requires_grad_()
        exact = x.detach().double().requires_grad_()
        outputs, expected = selkern.relu_with_mean(x), reference.relu_with_mean(exact)
        cotangents = [cotangent_for(output) for output in outputs]
        (gradient,) = torch.autograd.grad(outputs, x, cotangents)
        (exact_gradient,) = torch.autograd.grad(expected, exact, [c.double() for c in cotangents])
        assert_gradient(gradient, exact_gradient)

    def test_neighbours_of_a_non_finite_map(
        self, size: tuple, offset: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        x = maps_of(size, dtype, offset, device)
        rows = x.view(-1, math.prod(size))
        rows[1, 0], rows[3 % len(rows), -1] = torch.nan, torch.inf
        expected = reference.spatial_mean(x.double())
        y, mean = selkern.relu_with_mean(x)
        torch.testing.assert_close(y, torch.relu(x), rtol=0, atol=0, equal_nan=True)
        for each in (selkern.spatial_mean(x), mean):
            assert torch.equal(each.isnan(), expected.isnan())
            assert torch.equal(each.isinf(), expected.isinf())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=case_name)
@pytest.mark.parametrize(("offset", "size"), [(0, (28, 28)), (1, (7, 7))], ids=case_name)
def test_two_stages_a_block(
    offset: int, size: tuple, dtype: torch.dtype, device: torch.device
) -> None:
    row_bytes = math.prod(size) * dtype.itemsize
    shape = (2, 1024 * STAGE_BYTES // row_bytes + 3, *size)
    values = torch.randn(offset + math.prod(shape), device=device).to(dtype)
    x = values[offset:].view(shape)
    assert_means(selkern.spatial_mean(x), x)
    y, mean = selkern.relu_with_mean(x)
    assert torch.equal(y, torch.relu(x))
    assert_means(mean, y)
    gradient = selkern._pooling_autograd._ops.relu_with_mean_backward(x, mean, y)
    expected = torch.where(y > 0, x.double() + mean[..., None, None].double() / math.prod(size), 0)
    assert_gradient(gradient, expected)
