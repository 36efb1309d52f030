"""Several layers in one call, and the gradients that reach each of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from cases import (
    DTYPES,
    GRADIENT_TOLERANCE,
    IMPLEMENTATIONS,
    LABELS,
    LAYOUTS,
    assert_gradient,
    assert_matches_reference,
    assert_value,
    case_name,
    cotangent_for,
    normal,
    result_dtype,
    uniform,
)
from torch import Tensor

import selkern
from selkern import reference


def _network(dtype: torch.dtype) -> dict[str, Tensor]:
    return {
        "rows": uniform((12, 9), dtype),
        "tokens": uniform((12, 7, 20), dtype).movedim(-1, 1),
        "maps": uniform((12, 5, 4, 4), dtype),
        "channels_last": uniform((12, 33, 3, 5), dtype, "units_last"),
        "volume": uniform((12, 2, 2, 3, 3), dtype),
        "copied": uniform((12, 4, 6, 6), dtype, "last_axes_swapped"),
    }


@pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
def test_layers_of_every_layout_in_one_call(dtype: torch.dtype) -> None:
    layers, labels = _network(dtype), LABELS["partly_ignored"](12, 4)
    leaves = {name: x.detach().requires_grad_() for name, x in layers.items()}
    exact = {name: x.detach().double().requires_grad_() for name, x in layers.items()}
    loss = selkern.mean_selectivity(leaves, labels, 4)
    expected = reference.mean_selectivity(exact, labels, 4)
    assert loss.dtype == result_dtype(dtype)
    assert loss.shape == ()
    assert_value(loss, expected.detach())
    gradients = torch.autograd.grad(loss * 100, list(leaves.values()))
    expected_gradients = torch.autograd.grad(expected * 100, list(exact.values()))
    for gradient, value in zip(gradients, expected_gradients, strict=True):
        assert gradient.dtype == dtype
        assert_gradient(gradient, value)


@IMPLEMENTATIONS
def test_every_layer_weighs_the_same(module: object) -> None:
    layers, labels = list(_network(torch.float64).values()), LABELS["random"](12, 4)
    each = [module.selectivity_index(x, labels, 4).mean() for x in layers]
    torch.testing.assert_close(module.mean_selectivity(layers, labels, 4), sum(each) / len(each))


@IMPLEMENTATIONS
def test_a_tensor_a_sequence_and_a_mapping_mean_the_same(module: object) -> None:
    x, labels = uniform((6, 4, 3), torch.float32), LABELS["random"](6, 3)
    expected = module.mean_selectivity(x, labels, 3)
    for activations in ([x], (x,), {"relu": x}, [x, x], {"a": x, "b": x}):
        torch.testing.assert_close(module.mean_selectivity(activations, labels, 3), expected)


@IMPLEMENTATIONS
def test_each_entry_may_have_its_own_unit_axis(module: object) -> None:
    maps, tokens = uniform((6, 4, 5, 3), torch.float64), uniform((6, 7, 9), torch.float64)
    labels = LABELS["random"](6, 3)
    expected = module.mean_selectivity([maps, tokens.movedim(-1, 1)], labels, 3)
    in_order = module.mean_selectivity([maps, tokens], labels, 3, unit_dim=[1, -1])
    torch.testing.assert_close(in_order, expected)
    by_name = module.mean_selectivity(
        {"maps": maps, "tokens": tokens}, labels, 3, unit_dim={"tokens": 2, "maps": 1}
    )
    torch.testing.assert_close(by_name, expected)


@pytest.mark.parametrize("unit_dim", [-1, 2])
def test_gradients_of_tokens_have_their_shape(unit_dim: int) -> None:
    x, labels = uniform((6, 7, 18), torch.float32), LABELS["random"](6, 3)
    for name in ("class_means", "selectivity_index", "mean_selectivity"):
        assert_matches_reference(name, x, labels, 3, unit_dim=unit_dim)


@IMPLEMENTATIONS
def test_means_of_relu_go_straight_in(module: object) -> None:
    x, labels = normal((8, 5, 4, 4), torch.float64), LABELS["in_turn"](8, 3)
    y, mean = module.relu_with_mean(x)
    torch.testing.assert_close(
        module.mean_selectivity([mean], labels, 3), module.mean_selectivity([y], labels, 3)
    )


@pytest.mark.parametrize("low", [torch.float16, torch.bfloat16, torch.float32], ids=case_name)
def test_layers_of_different_dtypes_keep_theirs_in_the_gradient(low: torch.dtype) -> None:
    labels = LABELS["random"](8, 3)
    layers = [uniform((8, 5, 3), low), uniform((8, 7), torch.float64), uniform((8, 3), low)]
    leaves = [x.detach().requires_grad_() for x in layers]
    exact = [x.detach().double().requires_grad_() for x in layers]
    loss = selkern.mean_selectivity(leaves, labels, 3)
    expected = reference.mean_selectivity(exact, labels, 3)
    assert loss.dtype == torch.float64
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-6)
    gradients = torch.autograd.grad(loss, leaves)
    expected_gradients = torch.autograd.grad(expected, exact)
    for x, gradient, value in zip(layers, gradients, expected_gradients, strict=True):
        assert gradient.dtype == x.dtype
        tolerance = max(GRADIENT_TOLERANCE[low], 1e-5)
        torch.testing.assert_close(gradient.double(), value, rtol=tolerance, atol=1e-6)
    mixed = [layers[0], layers[2].bfloat16()]
    assert selkern.mean_selectivity(mixed, labels, 3).dtype == torch.float32


def test_hundreds_of_layers_in_one_call() -> None:
    labels = LABELS["random"](6, 3)
    layers = [uniform((6, 1 + i % 5, 1 + i % 3), torch.float32) for i in range(400)]
    leaves = [x.requires_grad_() for x in layers]
    loss = selkern.mean_selectivity(leaves, labels, 3)
    expected = reference.mean_selectivity([x.double() for x in layers], labels, 3)
    assert_value(loss, expected.detach())
    gradients = torch.autograd.grad(loss, leaves)
    expected_gradients = torch.autograd.grad(expected, leaves)
    for gradient, value in zip(gradients, expected_gradients, strict=True):
        assert_gradient(gradient, value.double())


# ------------------------------------------------------------------------------- gradients

INCOMING: dict[str, Callable[[Tensor], Tensor]] = {
    name: LAYOUTS[name]
    for name in (
        "samples_last",
        "every_second_sample",
        "every_second_unit",
        "without_first_unit",
        "expanded_samples",
        "expanded_units",
        "expanded",
    )
}


@pytest.mark.parametrize("strides", INCOMING)
def test_incoming_gradients_of_class_means_may_have_any_strides(strides: str) -> None:
    x, labels = uniform((9, 18, 2, 2), torch.float32).requires_grad_(), LABELS["int32"](9, 4)
    means, _ = selkern.class_means(x, labels, 4)
    cotangent = INCOMING[strides](cotangent_for(means))
    (gradient,) = torch.autograd.grad(means, x, cotangent, retain_graph=True)
    (expected,) = torch.autograd.grad(means, x, cotangent.contiguous())
    assert torch.equal(gradient, expected)


@pytest.mark.parametrize("strides", ["expanded", "strided"])
def test_incoming_gradients_of_the_index_may_have_any_strides(strides: str) -> None:
    x, labels = uniform((9, 18, 2, 2), torch.float32).requires_grad_(), LABELS["random"](9, 4)
    index = selkern.selectivity_index(x, labels, 4)
    cotangent = cotangent_for(index)
    cotangent = {
        "expanded": cotangent[:1].expand(18),
        "strided": torch.stack([cotangent, cotangent], 1)[:, 0],
    }[strides]
    (gradient,) = torch.autograd.grad(index, x, cotangent, retain_graph=True)
    (expected,) = torch.autograd.grad(index, x, cotangent.contiguous())
    assert torch.equal(gradient, expected)


def test_layers_without_gradient_are_skipped() -> None:
    labels = LABELS["random"](6, 3)
    wanted = uniform((6, 4, 3), torch.float32).requires_grad_()
    constant = uniform((6, 5), torch.float32)
    loss = selkern.mean_selectivity([constant, wanted], labels, 3)
    (gradient,) = torch.autograd.grad(loss, wanted)
    expected = torch.autograd.grad(selkern.mean_selectivity(wanted, labels, 3) / 2, wanted)[0]
    torch.testing.assert_close(gradient, expected)
    assert not selkern.mean_selectivity([constant], labels, 3).requires_grad


def test_nothing_is_recorded_without_gradients() -> None:
    x, labels = uniform((6, 4, 3), torch.float32).requires_grad_(), LABELS["random"](6, 3)

    def outputs() -> list[Tensor]:
        means, counts = selkern.class_means(x, labels, 3)
        index = selkern.selectivity_index(x, labels, 3)
        from_means = selkern.selectivity_index_from_means(means, counts)
        return [means, index, from_means, selkern.mean_selectivity([x], labels, 3)]

    expected = outputs()
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            actual = outputs()
        for output, value in zip(actual, expected, strict=True):
            assert not output.requires_grad
            assert torch.equal(output, value)


def test_one_tensor_in_two_layers_gets_both_gradients() -> None:
    x, labels = uniform((6, 4, 3), torch.float64).requires_grad_(), LABELS["random"](6, 3)
    (twice,) = torch.autograd.grad(selkern.mean_selectivity([x, x], labels, 3), x)
    (once,) = torch.autograd.grad(selkern.mean_selectivity(x, labels, 3), x)
    torch.testing.assert_close(twice, once)
