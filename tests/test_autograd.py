"""Derivatives of every order, function transforms, checkpointing, and the gradients themselves."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import pytest
import torch
from cases import LABELS, LAYOUTS, NUM_CLASSES, OPERATORS, SPARSE_LABELS, TRANSFORMS, uniform
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, grad, hessian, jacrev, jvp, vmap
from torch.utils.checkpoint import checkpoint

import selkern
from selkern import reference

Operator = Callable[[object, Tensor, Tensor, int], Tensor]
every_operator = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)


def double_maps(samples: int = 8, layout: str = "contiguous") -> Tensor:
    return uniform((samples, 3, 2, 3), torch.float64, layout)


def fixed(operator: Operator, labels: Tensor = SPARSE_LABELS) -> Callable[[Tensor], Tensor]:
    return lambda x: operator(selkern, x, labels, NUM_CLASSES)


# ------------------------------------------------------------------------- finite differences


@every_operator
@pytest.mark.parametrize("layout", ["contiguous", "units_last", "last_axes_swapped"])
@pytest.mark.parametrize("pattern", ["sparse", "random", "in_turn"])
def test_first_and_second_derivatives(operator: Operator, layout: str, pattern: str) -> None:
    labels = SPARSE_LABELS if pattern == "sparse" else LABELS[pattern](8, NUM_CLASSES)
    x = double_maps(layout=layout).requires_grad_()
    assert gradcheck(fixed(operator, labels), x)
    assert gradgradcheck(fixed(operator, labels), x)


@pytest.mark.parametrize("unit_dim", [1, -1])
@pytest.mark.parametrize("outputs", [slice(0, 1), slice(1, 2), slice(0, 2)])
def test_derivatives_of_relu_with_mean(unit_dim: int, outputs: slice) -> None:
    x = (uniform((2, 3, 4), torch.float64) - 0.5).requires_grad_()

    def function(x: Tensor) -> tuple[Tensor, ...]:
        return selkern.relu_with_mean(x, unit_dim=unit_dim)[outputs]

    assert gradcheck(function, x)
    assert gradgradcheck(function, x)


def test_derivatives_with_respect_to_every_layer() -> None:
    layers = [
        uniform((8, 3), torch.float64),
        uniform((8, 2, 3), torch.float64),
        uniform((8, 2, 2, 2), torch.float64, "units_last"),
    ]
    leaves = [x.detach().requires_grad_() for x in layers]

    def function(*activations: Tensor) -> Tensor:
        return selkern.mean_selectivity(
            activations, SPARSE_LABELS, NUM_CLASSES, unit_dim=[1, -1, 1], eps=0.1
        )

    assert gradcheck(function, leaves)
    assert gradgradcheck(function, leaves)


@pytest.mark.parametrize("counts", [None, torch.tensor([3, 0, 1, 2, 0])], ids=["all", "some"])
def test_derivatives_of_the_index_from_means(counts: Tensor | None) -> None:
    means = uniform((5, 4), torch.float64).requires_grad_()
    function = partial(selkern.selectivity_index_from_means, counts=counts)
    assert gradcheck(function, means)
    assert gradgradcheck(function, means)


def test_third_derivatives() -> None:
    x = double_maps().requires_grad_()

    def slope(module: object, x: Tensor) -> Tensor:
        loss = OPERATORS["mean_selectivity"](module, x, SPARSE_LABELS, NUM_CLASSES)
        (first,) = torch.autograd.grad(loss, x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
        (third,) = torch.autograd.grad(second.square().sum(), x)
        return third

    torch.testing.assert_close(slope(selkern, x), slope(reference, x), rtol=1e-9, atol=1e-12)


def test_second_derivatives_arrive_through_a_network() -> None:
    weight = torch.randn(3, 3, 3, 3, dtype=torch.float64)
    x = double_maps().requires_grad_()

    def penalty(module: object) -> Tensor:
        y, mean = module.relu_with_mean(torch.conv2d(x, weight, padding=1))
        loss = module.mean_selectivity([mean, y.square()], SPARSE_LABELS, NUM_CLASSES)
        (slope,) = torch.autograd.grad(loss + y.square().mean(), x, create_graph=True)
        (second,) = torch.autograd.grad(slope.square().sum(), x)
        return second

    second = penalty(selkern)
    assert second.abs().max() > 1e-6
    torch.testing.assert_close(second, penalty(reference), rtol=1e-9, atol=1e-14)


# ------------------------------------------------------------------------- torch.func


def _loss(operator: Operator, module: object, labels: Tensor, x: Tensor) -> Tensor:
    return operator(module, x, labels, NUM_CLASSES).sin().sum()


@every_operator
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_transforms_agree_with_the_reference(transform: Callable, operator: Operator) -> None:
    x = uniform((2, 8, 3, 2, 2), torch.float64)
    actual = transform(partial(_loss, operator, selkern, SPARSE_LABELS))(x)
    expected = transform(partial(_loss, operator, reference, SPARSE_LABELS))(x)
    assert actual.abs().max() > 0
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)


@every_operator
def test_jacrev_of_every_output_agrees_with_the_reference(operator: Operator) -> None:
    x = double_maps()
    actual = jacrev(fixed(operator))(x)
    expected = jacrev(lambda x: operator(reference, x, SPARSE_LABELS, NUM_CLASSES))(x)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "name", ["class_means", "selectivity_index", "selectivity_index_from_means", "mean_selectivity"]
)
@pytest.mark.parametrize("in_dims", [(0, 0), (None, 0), (0, None), (1, 1), (None, 1)], ids=str)
def test_labels_may_be_batched(name: str, in_dims: tuple) -> None:
    labels = torch.stack([SPARSE_LABELS, SPARSE_LABELS.flip(0), torch.arange(8) % NUM_CLASSES])
    x = uniform((3, 8, 3, 2, 2), torch.float64)
    x_in = x[0] if in_dims[0] is None else x.movedim(0, in_dims[0])
    labels_in = labels[0] if in_dims[1] is None else labels.movedim(0, in_dims[1])

    def per_example(x: Tensor, labels: Tensor) -> Tensor:
        return grad(partial(_loss, OPERATORS[name], selkern, labels))(x)

    actual = vmap(per_example, in_dims)(x_in, labels_in)
    for i in range(3):
        expected = per_example(
            x[0] if in_dims[0] is None else x[i], labels[0] if in_dims[1] is None else labels[i]
        )
        torch.testing.assert_close(actual[i], expected, rtol=1e-12, atol=1e-14)


def test_counts_of_batched_labels() -> None:
    labels = torch.tensor([[0, 1, 1], [2, 2, -100]])
    counts = vmap(lambda labels: selkern.class_means(torch.ones(3, 2), labels, 3)[1])(labels)
    assert counts.tolist() == [[1, 2, 0], [0, 0, 2]]


@every_operator
def test_transforms_need_no_fallback(operator: Operator) -> None:
    x = uniform((2, 8, 3, 2, 2), torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for transform in TRANSFORMS.values():
            transform(partial(_loss, operator, selkern, SPARSE_LABELS))(x)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("layout", ["units_last", "every_second_sample", "expanded_positions"])
def test_transforms_of_other_layouts(layout: str, name: str) -> None:
    x = uniform((2, 8, 3, 3, 4), torch.float32)
    x = LAYOUTS[layout](x.flatten(0, 1)).unflatten(0, (2, 8)).movedim(0, 2)
    actual = vmap(grad(partial(_loss, OPERATORS[name], selkern, SPARSE_LABELS)), 2)(x)
    expected = vmap(grad(partial(_loss, OPERATORS[name], reference, SPARSE_LABELS)), 2)(x)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


def test_per_sample_gradients_of_a_network() -> None:
    model = torch.nn.Linear(5, 6, dtype=torch.float64)
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    inputs = torch.randn(7, 8, 5, dtype=torch.float64)

    def loss(module: object, parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        y, mean = module.relu_with_mean(functional_call(model, parameters, (x,)))
        return module.mean_selectivity([mean], SPARSE_LABELS, NUM_CLASSES) + y.square().mean()

    actual = vmap(grad(partial(loss, selkern)), (None, 0))(parameters, inputs)
    expected = vmap(grad(partial(loss, reference)), (None, 0))(parameters, inputs)
    torch.testing.assert_close(actual, expected)


@every_operator
def test_forward_mode_is_refused(operator: Operator) -> None:
    x = double_maps()
    with pytest.raises(NotImplementedError):
        jvp(fixed(operator), (x,), (torch.ones_like(x),))
    with torch.autograd.forward_ad.dual_level(), pytest.raises(NotImplementedError):
        fixed(operator)(torch.autograd.forward_ad.make_dual(x, torch.ones_like(x)))
    with pytest.raises(NotImplementedError):
        hessian(partial(_loss, operator, selkern, SPARSE_LABELS))(x)


# ------------------------------------------------------------------------- what arrives


@every_operator
@pytest.mark.parametrize("layout", ["contiguous", "units_last", "every_second_sample"])
def test_a_gradient_really_arrives(operator: Operator, layout: str) -> None:
    x = uniform((8, 3, 2, 3), torch.float32, layout).requires_grad_()
    output = fixed(operator)(x)
    assert output.requires_grad
    output.square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def _is_dense(x: Tensor) -> bool:
    return x.is_contiguous() or x.movedim(1, -1).is_contiguous()


@every_operator
@pytest.mark.parametrize("layout", ["contiguous", "units_last", "last_axes_swapped"])
def test_the_gradient_of_a_leaf_can_be_changed_in_place(operator: Operator, layout: str) -> None:
    leaf = double_maps(layout=layout).requires_grad_()
    (gradient,) = torch.autograd.grad(fixed(operator)(leaf).sum(), leaf)
    assert _is_dense(gradient)
    expected = gradient.clone() * 2
    assert torch.equal(gradient.mul_(2), expected)

    for _ in range(2):
        fixed(operator)(leaf).sum().backward()
    leaf.grad.add_(1.0)
    torch.testing.assert_close(leaf.grad, expected + 1)


@pytest.mark.parametrize("name", ["spatial_mean", "relu_with_mean", "class_means"])
def test_the_gradient_of_leaf_tokens_can_be_changed_in_place(name: str) -> None:
    leaf = uniform((8, 5, 3), torch.float64).requires_grad_()
    arguments = () if name != "class_means" else (SPARSE_LABELS, NUM_CLASSES)
    outputs = getattr(selkern, name)(leaf, *arguments, unit_dim=-1)
    mean = outputs if isinstance(outputs, Tensor) else outputs[0]
    (gradient,) = torch.autograd.grad(mean.sum(), leaf)
    assert gradient.is_contiguous()
    gradient.zero_()


def test_several_leaves_do_not_share_their_gradients() -> None:
    leaves = [double_maps().requires_grad_() for _ in range(2)]
    loss = selkern.mean_selectivity(leaves, SPARSE_LABELS, NUM_CLASSES)
    first, second = torch.autograd.grad(loss, leaves)
    before = second.clone()
    first.zero_()
    assert torch.equal(second, before)


@every_operator
def test_a_second_backward_gives_the_same(operator: Operator) -> None:
    x = double_maps().requires_grad_()
    loss = fixed(operator)(x).square().sum()
    (first,) = torch.autograd.grad(loss, x, retain_graph=True)
    (second,) = torch.autograd.grad(loss, x)
    assert torch.equal(first, second)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, x)


@every_operator
def test_gradients_do_not_depend_on_recording_them(operator: Operator) -> None:
    x = double_maps().requires_grad_()
    (plain,) = torch.autograd.grad(fixed(operator)(x).square().sum(), x)
    (recorded,) = torch.autograd.grad(fixed(operator)(x).square().sum(), x, create_graph=True)
    torch.testing.assert_close(plain, recorded, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", OPERATORS)
def test_recorded_gradients_of_low_precision_keep_its_dtype(name: str, dtype: torch.dtype) -> None:
    x = uniform((8, 3, 2, 3), dtype).requires_grad_()
    loss = fixed(OPERATORS[name])(x).float().square().sum()
    (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
    assert gradient.dtype == dtype
    if gradient.requires_grad:
        (second,) = torch.autograd.grad(gradient.float().square().sum(), x)
        assert second.dtype == dtype
        assert second.isfinite().all()


def test_gradients_of_several_losses_add_up() -> None:
    x = double_maps().requires_grad_()
    losses = [fixed(operator)(x).square().sum() for operator in OPERATORS.values()]
    (together,) = torch.autograd.grad(sum(losses), x, retain_graph=True)
    alone = sum(torch.autograd.grad(loss, x)[0] for loss in losses)
    torch.testing.assert_close(together, alone)


# ------------------------------------------------------------------------- checkpointing


@every_operator
def test_checkpointing_changes_nothing(operator: Operator) -> None:
    x = double_maps().requires_grad_()

    def block(x: Tensor) -> Tensor:
        return fixed(operator)(x.square())

    (expected,) = torch.autograd.grad(block(x).square().sum(), x)
    recomputed = checkpoint(block, x, use_reentrant=False)
    (actual,) = torch.autograd.grad(recomputed.square().sum(), x)
    assert torch.equal(actual, expected)
    x.grad = None
    checkpoint(block, x, use_reentrant=True).square().sum().backward()
    assert torch.equal(x.grad, expected)


def test_checkpointing_part_of_a_network_changes_nothing() -> None:
    x = double_maps().requires_grad_()
    weight = torch.randn(3, 3, 3, 3, dtype=torch.float64)

    def block(x: Tensor) -> tuple[Tensor, Tensor]:
        return selkern.relu_with_mean(torch.conv2d(x, weight, padding=1))

    def loss(run: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        y, first = run(x)
        y, second = run(y)
        return y.mean() + selkern.mean_selectivity([first, second], SPARSE_LABELS, NUM_CLASSES)

    (expected,) = torch.autograd.grad(loss(block), x)
    (actual,) = torch.autograd.grad(loss(partial(checkpoint, block, use_reentrant=False)), x)
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("name", OPERATORS)
def test_vmap_over_nothing_gives_nothing(name: str) -> None:
    def function(x: Tensor) -> Tensor:
        return OPERATORS[name](selkern, x, SPARSE_LABELS, NUM_CLASSES)

    x = torch.zeros(0, 8, 3, 2, 2)
    assert vmap(function)(x).shape == (0, *function(torch.zeros(8, 3, 2, 2)).shape)
