"""The definition in plain PyTorch, against NumPy, finite differences and float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from cases import DTYPES, LABELS, OPERATORS, SPARSE_LABELS, assert_value, case_name, normal, uniform
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, vmap

from selkern import reference


def loss(x: Tensor, labels: Tensor) -> Tensor:
    y, mean = reference.relu_with_mean(x - 0.25)
    means, counts = reference.class_means(y, labels, 4)
    index = reference.selectivity_index_from_means(means, counts)
    return reference.mean_selectivity([x, mean], labels, 4) + index.square().sum()


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
def test_derivatives(operator: Callable[..., Tensor]) -> None:
    x = uniform((8, 3, 2, 3), torch.float64).requires_grad_()
    assert gradcheck(lambda x: operator(reference, x, SPARSE_LABELS, 4), x)
    assert gradgradcheck(lambda x: operator(reference, x, SPARSE_LABELS, 4), x)


@pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
def test_values_meet_the_tolerance_at_common_sizes(dtype: torch.dtype) -> None:
    x, labels = uniform((128, 33, 9, 9), dtype), LABELS["partly_ignored"](128, 10)
    exact = x.double()
    assert_value(reference.spatial_mean(x), reference.spatial_mean(exact))
    for name in ("class_means", "selectivity_index"):
        actual = getattr(reference, name)(x, labels, 10)
        expected = getattr(reference, name)(exact, labels, 10)
        if name == "class_means":
            actual, expected = actual[0], expected[0]
        assert_value(actual, expected)


def test_spatial_means_are_those_of_torch() -> None:
    x = normal((4, 3, 5, 2), torch.float64)
    torch.testing.assert_close(reference.spatial_mean(x), x.mean((2, 3)))
    torch.testing.assert_close(reference.spatial_mean(x, unit_dim=-1), x.mean((1, 2)))
    y, mean = reference.relu_with_mean(x)
    assert torch.equal(y, x.relu())
    torch.testing.assert_close(mean, x.relu().mean((2, 3)))


@pytest.mark.parametrize("in_dims", [(0, 0), (0, None), (None, 0)], ids=str)
def test_batches_of_problems(in_dims: tuple) -> None:
    x = uniform((2, 8, 3, 2, 2), torch.float64)
    labels = torch.stack([SPARSE_LABELS, torch.arange(8) % 4])
    arguments = [a if d == 0 else a[0] for a, d in zip((x, labels), in_dims, strict=True)]
    actual = vmap(grad(loss), in_dims)(*arguments)
    for i in range(2):
        one = [a if d is None else a[i] for a, d in zip(arguments, in_dims, strict=True)]
        torch.testing.assert_close(actual[i], grad(loss)(*one))


@pytest.mark.usefixtures("fresh_compiler")
def test_the_compiled_baseline_needs_no_graph_break() -> None:
    x = uniform((8, 3, 4, 4), torch.float32).requires_grad_()
    (expected,) = torch.autograd.grad(loss(x, SPARSE_LABELS), x)
    compiled = torch.compile(loss, fullgraph=True)
    (actual,) = torch.autograd.grad(compiled(x, SPARSE_LABELS), x)
    torch.testing.assert_close(actual, expected)
    with pytest.raises(ValueError, match="got 4 at row 1"):
        compiled(x, torch.tensor([0, 4, 1, 1, 2, 2, 3, 3]))


def test_many_layers_are_taken_together_or_one_by_one_alike() -> None:
    labels = torch.tensor([0, 1, 1, 40_000])
    layers = [uniform((4, units), torch.float64) for units in (20, 17)]
    together = reference.mean_selectivity(layers, labels.clamp(max=2), 3)
    apart = reference.mean_selectivity(layers, labels, 50_000)
    torch.testing.assert_close(apart, together)
