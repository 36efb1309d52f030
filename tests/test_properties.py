"""Properties that hold for any shapes, strides and labels."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from cases import (
    DTYPES,
    assert_gradient,
    assert_matches_reference,
    assert_value,
    selectivity_by_definition,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import selkern
from selkern import reference

settings.register_profile("selkern", deadline=None, derandomize=True, database=None)
settings.load_profile("selkern")

positive_dtypes = st.sampled_from(DTYPES)


@st.composite
def activations(
    draw: st.DrawFn, dtypes: st.SearchStrategy = positive_dtypes, samples: int | None = None
) -> Tensor:
    """Non-negative activations [N, C, ...] of any size and with any strides."""
    if samples is None:
        samples = draw(st.integers(0, 12))
    units = draw(st.sampled_from([1, 2, 3, 15, 16, 17, 33, 70]))
    positions = draw(st.lists(st.integers(1, 9), max_size=3))
    dtype = draw(dtypes)
    steps = draw(st.tuples(*[st.integers(1, 2)] * 2))
    order = draw(st.sampled_from(list(permutations(range(2 + len(positions))))))
    sizes = [samples * steps[0], units * steps[1], *positions]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    x = torch.rand(*(sizes[axis] for axis in order), dtype=torch.float64, generator=generator)
    return x.to(dtype).permute(*torch.tensor(order).argsort())[:: steps[0], :: steps[1]]


@st.composite
def problems(
    draw: st.DrawFn, dtypes: st.SearchStrategy = positive_dtypes
) -> tuple[Tensor, Tensor, int]:
    """Activations, labels and the number of classes."""
    x = draw(activations(dtypes))
    num_classes = draw(st.integers(1, 15))
    of_one = st.one_of(st.just(-100), st.integers(0, num_classes - 1))
    labels = draw(st.lists(of_one, min_size=x.shape[0], max_size=x.shape[0]))
    integer = draw(st.sampled_from([torch.int64, torch.int32]))
    return x, torch.tensor(labels, dtype=integer), num_classes


double = st.just(torch.float64)


@settings(max_examples=150)
@given(activations())
def test_pooling_matches_the_reference(x: Tensor) -> None:
    assert_matches_reference("spatial_mean", x)
    assert_matches_reference("relu_with_mean", x - 0.5)


@settings(max_examples=200)
@given(problems())
def test_selectivity_matches_the_reference(problem: tuple[Tensor, Tensor, int]) -> None:
    for name in ("class_means", "selectivity_index", "mean_selectivity"):
        assert_matches_reference(name, *problem)


@settings(max_examples=60)
@given(problems(double))
def test_the_index_follows_its_definition(problem: tuple[Tensor, Tensor, int]) -> None:
    x, labels, num_classes = problem
    expected = selectivity_by_definition(reference.spatial_mean(x), labels)
    assert_value(selkern.selectivity_index(x, labels, num_classes), expected)


@settings(max_examples=60)
@given(problems(), st.data())
def test_the_unit_axis_may_be_anywhere(problem: tuple, data: st.DataObject) -> None:
    x, labels, num_classes = problem
    axis = data.draw(st.integers(1, x.ndim - 1))
    moved = x.movedim(1, axis)
    unit_dim = data.draw(st.sampled_from([axis, axis - x.ndim]))
    index = selkern.selectivity_index(moved, labels, num_classes, unit_dim=unit_dim)
    assert torch.equal(index, selkern.selectivity_index(x, labels, num_classes))
    y, mean = selkern.relu_with_mean(moved, unit_dim=unit_dim)
    assert torch.equal(y, torch.relu(moved))
    assert torch.equal(mean, selkern.relu_with_mean(x)[1])


@settings(max_examples=60)
@given(problems())
def test_non_negative_activations_have_an_index_from_zero_to_one(problem: tuple) -> None:
    index = selkern.selectivity_index(*problem)
    # The maximum and the mean of the rest are rounded apart, so equal ones may be off by one bit.
    assert (index >= -1e-6).all()
    assert (index <= 1).all()


@settings(max_examples=60)
@given(problems(double), st.randoms(use_true_random=False))
def test_the_order_of_samples_and_the_names_of_classes_do_not_matter(
    problem: tuple, random: object
) -> None:
    x, labels, num_classes = problem
    order = list(range(x.shape[0]))
    random.shuffle(order)
    names = list(range(num_classes + 3))
    random.shuffle(names)
    renamed = torch.tensor([names[k] if k >= 0 else k for k in labels.tolist()]).long()
    assert_value(
        selkern.selectivity_index(x[order], renamed[order], num_classes + 3),
        selkern.selectivity_index(x, labels, num_classes),
    )


@settings(max_examples=60)
@given(problems(double), st.integers(0, 4))
def test_ignored_samples_might_as_well_be_missing(problem: tuple, extra: int) -> None:
    x, labels, num_classes = problem
    noise = torch.full((extra, *x.shape[1:]), torch.nan, dtype=x.dtype)
    padded = torch.cat([noise, x])
    padded_labels = torch.cat([torch.full((extra,), -100), labels.long()])
    means, counts = selkern.class_means(padded, padded_labels, num_classes)
    expected_means, expected_counts = selkern.class_means(x, labels, num_classes)
    assert torch.equal(counts, expected_counts)
    assert_value(means, expected_means)


@settings(max_examples=60)
@given(problems(double))
def test_every_unit_is_on_its_own(problem: tuple) -> None:
    x, labels, num_classes = problem
    index = selkern.selectivity_index(x, labels, num_classes)
    each = [selkern.selectivity_index(unit, labels, num_classes) for unit in x.split(1, 1)]
    assert_value(index, torch.cat(each))
    if x.shape[0]:
        assert_value(selkern.mean_selectivity(x, labels, num_classes), index.mean())


@settings(max_examples=60)
@given(problems(double))
def test_class_means_are_linear_and_their_gradient_is_the_adjoint(problem: tuple) -> None:
    x, labels, num_classes = problem
    leaf = x.detach().requires_grad_()
    means, counts = selkern.class_means(leaf, labels, num_classes)
    assert counts.sum() == (labels != -100).sum()
    weights = torch.linspace(-1, 1, means.numel(), dtype=means.dtype).reshape(means.shape)
    (gradient,) = torch.autograd.grad(means, leaf, weights)
    torch.testing.assert_close((gradient * x).sum(), (weights * means).sum().detach())


@settings(max_examples=40)
@given(st.data())
def test_layers_of_any_shapes_in_one_call(data: st.DataObject) -> None:
    samples = data.draw(st.integers(1, 9))
    dtype = data.draw(positive_dtypes)
    layers = data.draw(st.lists(activations(st.just(dtype), samples), min_size=1, max_size=5))
    labels = torch.tensor(
        data.draw(st.lists(st.integers(0, 3), min_size=samples, max_size=samples))
    )
    leaves = [x.detach().requires_grad_() for x in layers]
    exact = [x.detach().double().requires_grad_() for x in layers]
    loss = selkern.mean_selectivity(leaves, labels, 4)
    expected = reference.mean_selectivity(exact, labels, 4)
    assert_value(loss, expected.detach())
    gradients = torch.autograd.grad(loss * 1000, leaves)
    expected_gradients = torch.autograd.grad(expected * 1000, exact)
    for gradient, value in zip(gradients, expected_gradients, strict=True):
        assert_gradient(gradient, value)


@settings(max_examples=60)
@given(st.data())
def test_bad_labels_are_named_wherever_they_are(data: st.DataObject) -> None:
    x = data.draw(activations(double, samples=9))
    labels = torch.tensor(data.draw(st.lists(st.integers(0, 3), min_size=9, max_size=9)))
    bad = st.integers(-(2**62), 2**62).filter(lambda k: k != -100 and not 0 <= k < 4)
    row, value = data.draw(st.integers(0, 8)), data.draw(bad)
    labels[row] = value
    with pytest.raises(ValueError, match=f"got {value} at row {row}$"):
        selkern.mean_selectivity(x, labels, 4)
