"""Values and gradients of spatial_mean and relu_with_mean."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from cases import (
    DTYPES,
    LAYOUTS,
    MAPS,
    POSITIONLESS,
    ROWS,
    assert_gradient,
    assert_matches_reference,
    assert_value,
    case_name,
    cotangent_for,
    normal,
    uniform,
    zeros_without_memory,
)
from torch import Tensor

import selkern
from selkern import reference

INPUTS = ROWS + MAPS


def mean_magnitude(x: Tensor) -> Tensor:
    return reference.spatial_mean(x.detach().double().abs())


@pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
@pytest.mark.parametrize("case", INPUTS, ids=case_name)
class TestAgainstReference:
    def test_spatial_mean(self, case: tuple, dtype: torch.dtype) -> None:
        x = normal(case[0], dtype, case[1])
        assert_matches_reference("spatial_mean", x, value_scale=mean_magnitude(x))

    def test_relu_with_mean(self, case: tuple, dtype: torch.dtype) -> None:
        x = normal(case[0], dtype, case[1])
        assert_matches_reference("relu_with_mean", x, value_scale=mean_magnitude(x))
        assert torch.equal(selkern.relu_with_mean(x)[0], torch.relu(x))


@pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
@pytest.mark.parametrize(
    ("shape", "unit_dim"),
    [
        ((3, 11, 18), -1),
        ((3, 11, 18), 2),
        ((3, 4, 5, 6), 2),
        ((3, 4, 5, 6), -1),
        ((2, 3, 4, 2, 7), 3),
        ((2, 3, 4, 2, 7), -4),
        ((4, 7), -1),
    ],
)
@pytest.mark.parametrize("layout", ["contiguous", "units_last", "every_second_sample"])
def test_any_axis_but_the_first_may_hold_the_units(
    shape: tuple, unit_dim: int, layout: str, dtype: torch.dtype
) -> None:
    x = normal(shape, dtype, layout)
    mean = selkern.spatial_mean(x, unit_dim=unit_dim)
    assert torch.equal(mean, selkern.spatial_mean(x.movedim(unit_dim, 1)))
    assert_matches_reference("spatial_mean", x, unit_dim=unit_dim)
    assert_matches_reference("relu_with_mean", x, unit_dim=unit_dim)


def test_rows_are_their_own_means() -> None:
    x = normal((4, 5), torch.float32)
    assert torch.equal(selkern.spatial_mean(x), x)


@pytest.mark.parametrize("name", ["spatial_mean", "relu_with_mean"])
@pytest.mark.parametrize("layout", ["contiguous", "units_last"])
@pytest.mark.parametrize("shape", POSITIONLESS, ids=case_name)
def test_the_mean_over_no_positions_is_nan(shape: tuple, layout: str, name: str) -> None:
    x = torch.ones(shape)
    x = LAYOUTS[layout](x).requires_grad_()
    outputs = getattr(selkern, name)(x)
    mean = outputs if isinstance(outputs, Tensor) else outputs[1]
    assert mean.shape == shape[:2]
    assert mean.isnan().all()
    (gradient,) = torch.autograd.grad(mean.sum(), x)
    assert gradient.shape == shape


# --------------------------------------------------------------------------------- accuracy


@pytest.mark.parametrize("layout", ["contiguous", "units_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
def test_long_sums_keep_their_accuracy(dtype: torch.dtype, layout: str) -> None:
    x = LAYOUTS[layout](torch.full((1, 2, 1000, 1000), 0.1, dtype=dtype))
    expected = torch.full((1, 2), x[0, 0, 0, 0].double().item(), dtype=torch.float64)
    assert_value(selkern.spatial_mean(x), expected)
    assert_value(selkern.relu_with_mean(x)[1], expected)


@pytest.mark.parametrize("layout", ["contiguous", "units_last"])
def test_a_large_offset_costs_no_accuracy(layout: str) -> None:
    x = LAYOUTS[layout](normal((2, 3, 300, 301), torch.float32) + 1000.0)
    assert_value(selkern.spatial_mean(x), reference.spatial_mean(x.double()))


@pytest.mark.parametrize("layout", ["contiguous", "units_last"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=case_name)
def test_sums_do_not_overflow(dtype: torch.dtype, layout: str) -> None:
    largest = torch.finfo(dtype).max
    x = LAYOUTS[layout](torch.full((2, 3, 40, 41), largest, dtype=dtype))
    expected = torch.full((2, 3), largest, dtype=torch.float64)
    assert_value(selkern.spatial_mean(x), expected)
    y, mean = selkern.relu_with_mean(x)
    assert torch.equal(y, x)
    assert_value(mean, expected)


def test_more_elements_than_32_bits_can_count() -> None:
    positions = 2**30 + 7
    maps = zeros_without_memory(2, 1, positions)
    maps[1, 0, -1] = 1
    assert_value(selkern.spatial_mean(maps) * positions, torch.tensor([[0.0], [1.0]]).double())

    tokens = zeros_without_memory(1, 2**16 + 1, 2**15)
    tokens[0, -1, -1] = 1
    mean = selkern.spatial_mean(tokens, unit_dim=-1)
    assert mean[0, -1] * (2**16 + 1) == 1
    assert mean.count_nonzero() == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=case_name)
def test_autocast_leaves_the_means_alone(dtype: torch.dtype) -> None:
    x = uniform((3, 4, 9, 9), torch.float32)
    with torch.autocast("cpu", dtype):
        mean, (y, mean_of_relu) = selkern.spatial_mean(x), selkern.relu_with_mean(x)
    assert mean.dtype == mean_of_relu.dtype == y.dtype == torch.float32
    assert torch.equal(mean, selkern.spatial_mean(x))
    assert torch.equal(mean_of_relu, selkern.relu_with_mean(x)[1])


# --------------------------------------------------------------------------------- non-finite


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("layout", ["contiguous", "units_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
def test_a_non_finite_value_stays_in_its_map(dtype: torch.dtype, layout: str, value: float) -> None:
    x = normal((3, 20, 5, 5), dtype)
    x[1, 17, 4, 4] = value
    x = LAYOUTS[layout](x)
    elsewhere = torch.ones(3, 20, dtype=torch.bool)
    elsewhere[1, 17] = False
    mean = selkern.spatial_mean(x)
    assert not mean[1, 17].isfinite()
    assert mean[elsewhere].isfinite().all()
    y, mean = selkern.relu_with_mean(x)
    torch.testing.assert_close(y, torch.relu(x), rtol=0, atol=0, equal_nan=True)
    assert mean[1, 17].isfinite() == (value == -torch.inf)
    assert mean[elsewhere].isfinite().all()


@pytest.mark.parametrize("layout", ["contiguous", "units_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
def test_relu_passes_the_gradient_at_nan_as_torch_does(dtype: torch.dtype, layout: str) -> None:
    x = normal((2, 17, 3, 3), dtype)
    x[0, 0, 0, :2] = torch.tensor([torch.nan, 0.0])
    x = LAYOUTS[layout](x).requires_grad_()
    plain = x.detach().requires_grad_()
    y, _ = selkern.relu_with_mean(x)
    expected = torch.relu(plain)
    cotangent = cotangent_for(y)
    (gradient,) = torch.autograd.grad(y, x, cotangent)
    (expected_gradient,) = torch.autograd.grad(expected, plain, cotangent)
    assert gradient[0, 0, 0, 0] == cotangent[0, 0, 0, 0]
    assert torch.equal(gradient, expected_gradient)


# --------------------------------------------------------------------------------- layouts


@pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
@pytest.mark.parametrize(
    ("shape", "memory_format"),
    [
        ((2, 3, 4, 5), torch.contiguous_format),
        ((2, 3, 4, 5), torch.channels_last),
        ((2, 3, 2, 4, 5), torch.contiguous_format),
        ((2, 3, 2, 4, 5), torch.channels_last_3d),
    ],
    ids=str,
)
def test_outputs_and_gradients_keep_the_memory_format(
    shape: tuple, memory_format: torch.memory_format, dtype: torch.dtype
) -> None:
    x = normal(shape, dtype).contiguous(memory_format=memory_format).requires_grad_()
    y, mean = selkern.relu_with_mean(x)
    assert y.is_contiguous(memory_format=memory_format)
    (gradient,) = torch.autograd.grad([y, mean], x, [cotangent_for(y), cotangent_for(mean)])
    assert gradient.is_contiguous(memory_format=memory_format)
    (gradient,) = torch.autograd.grad(selkern.spatial_mean(x).sum(), x)
    assert gradient.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (2, 1, 4, 5), (2, 5, 1, 1), (1, 5, 4, 1), (0, 3, 4, 5)], ids=case_name
)
def test_axes_of_one_element_keep_the_memory_format_too(
    shape: tuple, memory_format: torch.memory_format
) -> None:
    x = normal(shape, torch.float32).contiguous(memory_format=memory_format).requires_grad_()
    y, mean = selkern.relu_with_mean(x)
    (gradient,) = torch.autograd.grad(y.sum() + mean.sum(), x)
    assert y.is_contiguous(memory_format=memory_format)
    assert gradient.is_contiguous(memory_format=memory_format)


def test_tokens_keep_their_strides() -> None:
    x = normal((3, 11, 18), torch.float32).requires_grad_()
    y, mean = selkern.relu_with_mean(x, unit_dim=-1)
    assert y.is_contiguous()
    (gradient,) = torch.autograd.grad(y.sum() + mean.sum(), x)
    assert gradient.is_contiguous()


def test_the_input_is_left_alone() -> None:
    x = normal((2, 3, 5, 5), torch.float32)
    before = x.clone()
    y, _ = selkern.relu_with_mean(x)
    y.zero_()
    selkern.spatial_mean(x).zero_()
    assert torch.equal(x, before)


# --------------------------------------------------------------------------------- gradients

COTANGENTS: dict[str, Callable[[Tensor], Tensor]] = {
    **{name: LAYOUTS[name] for name in LAYOUTS},
    "ones_expanded": lambda cotangent: torch.ones((), dtype=cotangent.dtype).expand_as(cotangent),
}


@pytest.mark.parametrize("of_mean", [*list(COTANGENTS)[:4], "expanded", "ones_expanded"])
@pytest.mark.parametrize("of_y", COTANGENTS)
@pytest.mark.parametrize("layout", ["contiguous", "units_last", "every_second_sample"])
def test_incoming_gradients_may_have_any_strides(layout: str, of_y: str, of_mean: str) -> None:
    x = normal((4, 3, 5, 6), torch.float32, layout).requires_grad_()
    y, mean = selkern.relu_with_mean(x)
    incoming = [COTANGENTS[of_y](cotangent_for(y)), COTANGENTS[of_mean](cotangent_for(mean))]
    dense = [cotangent.contiguous() for cotangent in incoming]
    (gradient,) = torch.autograd.grad([y, mean], x, incoming, retain_graph=True)
    (expected,) = torch.autograd.grad([y, mean], x, dense)
    assert torch.equal(gradient, expected)

    again = selkern.spatial_mean(x)
    (gradient,) = torch.autograd.grad(again, x, incoming[1], retain_graph=True)
    (expected,) = torch.autograd.grad(again, x, dense[1])
    assert torch.equal(gradient, expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
@pytest.mark.parametrize("layout", ["contiguous", "units_last"])
@pytest.mark.parametrize("present", ["y", "mean"])
def test_either_incoming_gradient_may_be_missing(
    present: str, layout: str, dtype: torch.dtype
) -> None:
    x = normal((4, 17, 5, 6), dtype, layout).requires_grad_()
    exact = x.detach().double().requires_grad_()
    position = ["y", "mean"].index(present)
    output = selkern.relu_with_mean(x)[position]
    expected_output = reference.relu_with_mean(exact)[position]
    cotangent = cotangent_for(output)
    (gradient,) = torch.autograd.grad(output, x, cotangent)
    (expected,) = torch.autograd.grad(expected_output, exact, cotangent.double())
    assert_gradient(gradient, expected)


def test_overwriting_what_the_backward_needs_is_noticed() -> None:
    x = normal((2, 3, 4, 4), torch.float32).requires_grad_()
    y, mean = selkern.relu_with_mean(x)
    y.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        mean.sum().backward()


def test_nothing_is_recorded_without_gradients() -> None:
    x = normal((2, 3, 4, 4), torch.float32).requires_grad_()
    expected = (*selkern.relu_with_mean(x), selkern.spatial_mean(x))
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            outputs = (*selkern.relu_with_mean(x), selkern.spatial_mean(x))
        for output, value in zip(outputs, expected, strict=True):
            assert not output.requires_grad
            assert torch.equal(output, value)


@pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
@pytest.mark.parametrize(
    "case", [case for case in INPUTS if "expanded" not in case[1]], ids=case_name
)
def test_in_place_relu_gives_the_same(case: tuple, dtype: torch.dtype) -> None:
    x = normal(case[0], dtype, case[1])
    y, mean = selkern.relu_with_mean(x)
    mean_in_place = torch.ops.selkern.relu_with_mean_(x)
    assert torch.equal(x, y)
    assert torch.equal(mean_in_place, mean)


@pytest.mark.parametrize("unit_dim", [1, -1])
def test_float64_sums_do_not_lose_digits_with_length(unit_dim: int) -> None:
    x = torch.full((1, 2, 2 * 10**6 + 3), 0.1, dtype=torch.float64)
    x = x.movedim(1, unit_dim).contiguous()
    mean = selkern.spatial_mean(x, unit_dim=unit_dim)
    torch.testing.assert_close(mean, torch.full_like(mean, 0.1), rtol=1e-13, atol=0)
