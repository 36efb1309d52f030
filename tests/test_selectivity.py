"""Values and gradients of the class means, the indices and their mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import (
    DTYPES,
    IMPLEMENTATIONS,
    LABELS,
    MAPS,
    ROWS,
    assert_matches_reference,
    assert_value,
    case_name,
    normal,
    selectivity_by_definition,
    uniform,
    zeros_without_memory,
)
from torch import Tensor

import selkern
from selkern import reference

# ---------------------------------------------------------------------------- against float64


@pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
@pytest.mark.parametrize("case", ROWS + MAPS, ids=case_name)
@pytest.mark.parametrize("name", ["class_means", "selectivity_index", "mean_selectivity"])
def test_every_input_matches_the_reference(name: str, case: tuple, dtype: torch.dtype) -> None:
    shape, layout = case
    labels = LABELS["random"](shape[0], 3)
    assert_matches_reference(name, uniform(shape, dtype, layout), labels, 3)


@pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
@pytest.mark.parametrize("num_classes", [1, 2, 6, 40])
@pytest.mark.parametrize("pattern", LABELS)
@pytest.mark.parametrize("name", ["class_means", "selectivity_index", "mean_selectivity"])
def test_every_pattern_of_labels_matches_the_reference(
    name: str, pattern: str, num_classes: int, dtype: torch.dtype
) -> None:
    if pattern == "odd_classes" and num_classes == 1:
        pattern = "one_class"
    labels = LABELS[pattern](23, num_classes)
    for shape in [(23, 18), (23, 5, 3, 3)]:
        assert_matches_reference(name, uniform(shape, dtype), labels, num_classes)


@pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
@pytest.mark.parametrize("samples", [0, 1, 2, 300])
def test_every_size_of_batch_matches_the_reference(samples: int, dtype: torch.dtype) -> None:
    labels = LABELS["partly_ignored"](samples, 10)
    for name in ["class_means", "selectivity_index", "mean_selectivity"]:
        assert_matches_reference(name, uniform((samples, 35), dtype), labels, 10)


@pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
@pytest.mark.parametrize("layout", ["contiguous", "samples_last", "every_second_sample"])
@pytest.mark.parametrize("counts", [None, [4, 0, 2, 0, 1], [0, 0, 3, 0, 0], [0] * 5])
def test_index_from_means_matches_the_reference(
    counts: list[int] | None, layout: str, dtype: torch.dtype
) -> None:
    means = uniform((5, 21), dtype, layout)
    for integer in (torch.int64, torch.int32):
        present = None if counts is None else torch.tensor(counts, dtype=integer)
        assert_matches_reference("selectivity_index_from_means", means, present)


@pytest.mark.parametrize("eps", [0, 0.0, 1e-6, 0.5])
def test_any_eps_matches_the_reference(eps: float) -> None:
    x, labels = uniform((9, 4, 3), torch.float32), LABELS["random"](9, 3)
    assert_matches_reference("selectivity_index", x, labels, 3, eps=eps)
    assert_matches_reference("mean_selectivity", x, labels, 3, eps=eps)
    assert_matches_reference("selectivity_index_from_means", x[..., 0], eps=eps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=case_name)
def test_signed_activations_follow_the_formula_as_it_stands(dtype: torch.dtype) -> None:
    x, labels = normal((40, 30), dtype) + 0.2, LABELS["random"](40, 4)
    m = x.double()
    means = torch.stack([m[labels == k].mean(0) for k in range(4)])
    largest = means.amax(0)
    rest = (means.sum(0) - largest) / 3
    expected = (largest - rest) / (largest + rest + 1e-6)
    scale = ((largest.abs() + rest.abs()) / (largest + rest).abs()).square()
    assert_value(selkern.selectivity_index(x, labels, 4), expected, scale)
    assert (expected.abs() > 1).any()


@IMPLEMENTATIONS
@pytest.mark.parametrize("pattern", [name for name in LABELS if name != "expanded"])
def test_the_index_follows_its_definition(module: object, pattern: str) -> None:
    m, labels = uniform((29, 7), torch.float64), LABELS[pattern](29, 6)
    expected = selectivity_by_definition(m, labels)
    torch.testing.assert_close(
        module.selectivity_index(m, labels, 6), expected, rtol=1e-12, atol=1e-12
    )


@IMPLEMENTATIONS
def test_an_example_worked_by_hand(module: object) -> None:
    x = torch.tensor([[4.0, 0.0], [2.0, 0.0], [1.0, 5.0], [2.0, 0.0]])
    labels = torch.tensor([0, 0, 1, 3])
    means, counts = module.class_means(x, labels, 5)
    assert means.tolist() == [[3.0, 0.0], [1.0, 5.0], [0.0, 0.0], [2.0, 0.0], [0.0, 0.0]]
    assert counts.tolist() == [2, 1, 0, 1, 0]
    index = module.selectivity_index(x, labels, 5, eps=0.5)
    expected = torch.tensor([1.5 / 5.0, 5.0 / 5.5])
    torch.testing.assert_close(index, expected)
    torch.testing.assert_close(module.mean_selectivity(x, labels, 5, eps=0.5), expected.mean())


# ------------------------------------------------------------------------------- the rules


@IMPLEMENTATIONS
def test_absent_classes_are_not_counted_as_zero(module: object) -> None:
    x, labels = uniform((12, 6), torch.float64), LABELS["in_turn"](12, 3)
    few = module.selectivity_index(x, labels, 3)
    many = module.selectivity_index(x, labels * 7, 50)
    torch.testing.assert_close(many, few, rtol=1e-12, atol=1e-12)


@IMPLEMENTATIONS
def test_counts_divide_the_sums_so_imbalance_is_not_selectivity(module: object) -> None:
    labels = torch.tensor([0] * 20 + [1] * 2)
    index = module.selectivity_index(torch.ones(22, 3), labels, 2)
    torch.testing.assert_close(index, torch.zeros(3), rtol=0, atol=1e-6)


@IMPLEMENTATIONS
@pytest.mark.parametrize("labels", [[1, 1, 1], [-100, 2, -100], [-100, -100, -100]])
def test_fewer_than_two_classes_give_zero_and_no_gradient(
    module: object, labels: list[int]
) -> None:
    x = uniform((3, 4, 2, 2), torch.float32).requires_grad_()
    index = module.selectivity_index(x, torch.tensor(labels), 3)
    assert index.tolist() == [0.0] * 4
    (gradient,) = torch.autograd.grad(index.sum(), x, create_graph=True)
    assert not gradient.any()
    if gradient.requires_grad:
        (second,) = torch.autograd.grad(gradient.sum(), x)
        assert not second.any()


@IMPLEMENTATIONS
@pytest.mark.parametrize("eps", [1e-6, 0.0])
@pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
def test_a_dead_unit_has_index_zero_and_no_gradient(
    module: object, dtype: torch.dtype, eps: float
) -> None:
    x = uniform((6, 5, 3, 3), dtype)
    x[:, 2] = 0
    x.requires_grad_()
    index = module.selectivity_index(x, LABELS["in_turn"](6, 3), 3, eps=eps)
    assert index[2] == 0
    assert (index[[0, 1, 3, 4]] > 0).all()
    (gradient,) = torch.autograd.grad(index.sum(), x, create_graph=True)
    assert not gradient[:, 2].any()
    assert gradient.isfinite().all()
    (second,) = torch.autograd.grad(gradient.square().sum(), x)
    assert not second[:, 2].any()
    assert second.isfinite().all()


@IMPLEMENTATIONS
@pytest.mark.parametrize("maximum", [1.0, 0.0])
def test_the_lowest_of_tied_classes_takes_the_gradient(module: object, maximum: float) -> None:
    means = torch.full((5, 40), -1.0)
    means[[1, 3, 4]] = maximum
    means.requires_grad_()
    (gradient,) = torch.autograd.grad(
        module.selectivity_index_from_means(means, eps=4.0).sum(), means
    )
    assert (gradient[1] > 0).all()
    assert (gradient[[0, 2, 3, 4]] < 0).all()

    x = means.detach()[[4, 3, 2, 1, 0]].requires_grad_()
    labels = torch.tensor([4, 3, 2, 1, 0])
    (of_samples,) = torch.autograd.grad(module.selectivity_index(x, labels, 5, eps=4.0).sum(), x)
    torch.testing.assert_close(of_samples.flip(0), gradient)


@IMPLEMENTATIONS
@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 2, 2)], ids=case_name)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, 3.0])
def test_ignored_samples_take_no_part(module: object, value: float, shape: tuple) -> None:
    x = uniform(shape, torch.float32)
    x[3] = value
    x.requires_grad_()
    labels = torch.tensor([0, 1, 0, -100, 1])
    kept = torch.tensor([0, 1, 2, 4])
    means, counts = module.class_means(x, labels, 2)
    expected_means, expected_counts = module.class_means(x[kept], labels[kept], 2)
    assert torch.equal(means, expected_means)
    assert torch.equal(counts, expected_counts)
    loss = module.mean_selectivity(x, labels, 2)
    assert torch.equal(loss, module.mean_selectivity(x[kept], labels[kept], 2))
    for output in (means, module.selectivity_index(x, labels, 2), loss):
        (gradient,) = torch.autograd.grad(output.sum(), x, create_graph=True)
        assert gradient[3].eq(0).all()
        assert gradient[kept].any()
    (second,) = torch.autograd.grad(gradient.square().sum(), x)
    assert second[3].eq(0).all()
    assert second[kept].isfinite().all()


@IMPLEMENTATIONS
@pytest.mark.parametrize("ignore_index", [1, -1, 255, -(2**40)])
def test_any_integer_may_be_the_ignored_label(module: object, ignore_index: int) -> None:
    x = uniform((6, 4), torch.float32)
    labels = torch.tensor([0, ignore_index, 2, 0, ignore_index, 2])
    means, counts = module.class_means(x, labels, 3, ignore_index=ignore_index)
    assert counts.tolist() == [2, 0, 2]
    torch.testing.assert_close(means[0], (x[0] + x[3]) / 2)
    kept = [0, 2, 3, 5]
    torch.testing.assert_close(
        module.selectivity_index(x, labels, 3, ignore_index=ignore_index),
        module.selectivity_index(x[kept], labels[kept], 3),
    )
    torch.testing.assert_close(
        module.mean_selectivity(x, labels, 3, ignore_index=ignore_index),
        module.mean_selectivity(x[kept], labels[kept], 3),
    )


@IMPLEMENTATIONS
@pytest.mark.parametrize("ignore_index", [-(2**40), 2**40, -(2**31)])
def test_int32_labels_work_with_any_ignored_label(module: object, ignore_index: int) -> None:
    labels = torch.tensor([0, 1, 1], dtype=torch.int32)
    _, counts = module.class_means(torch.ones(3, 2), labels, 2, ignore_index=ignore_index)
    assert counts.tolist() == [1, 2]


@IMPLEMENTATIONS
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("pattern", ["in_turn", "one_class"])
@pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
def test_a_non_finite_value_stays_in_its_unit(
    module: object, dtype: torch.dtype, pattern: str, value: float
) -> None:
    x, labels = uniform((6, 20, 3, 3), dtype), LABELS[pattern](6, 3)
    clean, _ = module.class_means(x, labels, 3)
    clean_index = module.selectivity_index(x, labels, 3)
    x[4, 17, 1, 1] = value
    elsewhere = torch.arange(20) != 17
    means, _ = module.class_means(x, labels, 3)
    assert not means[labels[4], 17].isfinite()
    assert torch.equal(means[:, elsewhere], clean[:, elsewhere])
    index = module.selectivity_index(x, labels, 3)
    assert not index[17].isfinite()
    assert torch.equal(index[elsewhere], clean_index[elsewhere])
    assert not module.mean_selectivity([x, x[:, :3]], labels, 3).isfinite()


@IMPLEMENTATIONS
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_non_finite_mean_stays_in_its_unit(module: object, value: float) -> None:
    means = uniform((4, 20), torch.float32)
    clean = module.selectivity_index_from_means(means)
    means[2, 17] = value
    index = module.selectivity_index_from_means(means)
    assert not index[17].isfinite()
    assert torch.equal(index[:17], clean[:17])
    absent = torch.tensor([1, 1, 0, 1])
    assert module.selectivity_index_from_means(means, absent).isfinite().all()


# ------------------------------------------------------------------------------- results


@pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
@pytest.mark.parametrize("layout", ["contiguous", "units_last", "last_axes_swapped"])
def test_the_fused_index_is_that_of_the_class_means(dtype: torch.dtype, layout: str) -> None:
    x, labels = uniform((40, 33, 5, 3), dtype, layout), LABELS["partly_ignored"](40, 7)
    two_steps = selkern.selectivity_index_from_means(*selkern.class_means(x, labels, 7))
    assert torch.equal(selkern.selectivity_index(x, labels, 7), two_steps)


@IMPLEMENTATIONS
@pytest.mark.parametrize("num_classes", [np.int64(3), np.uint8(3), torch.tensor(3)], ids=repr)
def test_num_classes_may_be_any_integer(module: object, num_classes: object) -> None:
    x, labels = uniform((6, 4), torch.float32), LABELS["in_turn"](6, 3)
    means, counts = selkern.class_means(x, labels, num_classes)
    assert means.shape == (3, 4)
    assert counts.shape == (3,)
    assert torch.equal(
        selkern.mean_selectivity(x, labels, num_classes), selkern.mean_selectivity(x, labels, 3)
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=case_name)
def test_many_classes_match_the_reference(dtype: torch.dtype) -> None:
    labels = torch.tensor([69_999, 0, 35_000, 69_999, -100, 12])
    x = uniform((6, 33, 2, 2), dtype)
    for name in ("class_means", "selectivity_index", "mean_selectivity"):
        assert_matches_reference(name, x, labels, 70_000)


@pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
def test_long_sums_over_samples_keep_their_accuracy(dtype: torch.dtype) -> None:
    x = torch.full((200_000, 3), 0.1, dtype=dtype)
    labels = torch.arange(200_000) % 2
    means, counts = selkern.class_means(x, labels, 2)
    assert counts.tolist() == [100_000, 100_000]
    assert_value(means, x[:2].double())
    index = selkern.selectivity_index(x, labels, 2)
    assert_value(index, torch.zeros(3, dtype=torch.float64))


def test_a_large_offset_costs_the_class_means_no_accuracy() -> None:
    x, labels = normal((60_000, 5), torch.float32) + 1000.0, LABELS["random"](60_000, 3)
    expected, _ = reference.class_means(x.double(), labels, 3)
    assert_value(selkern.class_means(x, labels, 3)[0], expected)


def test_more_elements_than_32_bits_can_count() -> None:
    x = zeros_without_memory(2**16 + 1, 2**15)
    x[-2:, -1] = torch.tensor([3, 1])
    labels = torch.arange(2**16 + 1) % 3
    means, counts = selkern.class_means(x, labels, 3)
    assert counts.tolist() == [21846, 21846, 21845]
    assert_value(means[:, -1] * counts, torch.tensor([3.0, 1.0, 0.0], dtype=torch.float64))
    assert not means[:, :-1].any()
    index = selkern.selectivity_index(x, labels, 3, eps=0)
    assert_value(index[-1:], torch.tensor([2.5 / 3.5], dtype=torch.float64))
    assert not index[:-1].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=case_name)
def test_sums_over_samples_do_not_overflow(dtype: torch.dtype) -> None:
    x = torch.full((500, 3, 9, 9), torch.finfo(dtype).max, dtype=dtype)
    x[::2] /= 2
    labels = torch.arange(500) % 2
    means, _ = selkern.class_means(x, labels, 2)
    assert_value(means, x[:2, :, 0, 0].double())
    assert_value(
        selkern.selectivity_index(x, labels, 2), torch.full((3,), 1 / 3, dtype=torch.float64)
    )


@IMPLEMENTATIONS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=case_name)
def test_autocast_changes_nothing(module: object, dtype: torch.dtype) -> None:
    x, labels = uniform((9, 4, 3, 3), torch.float32), LABELS["random"](9, 3)

    def results() -> list[Tensor]:
        means, counts = module.class_means(x, labels, 3)
        index = module.selectivity_index_from_means(means, counts)
        return [
            means,
            index,
            module.selectivity_index(x, labels, 3),
            module.mean_selectivity([x, x[..., 0]], labels, 3),
        ]

    with torch.autocast("cpu", dtype):
        lowered = results()
    for actual, expected in zip(lowered, results(), strict=True):
        assert actual.dtype == torch.float32
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("samples", [10**6, 3 * 10**6 + 5])
def test_float64_sums_do_not_lose_digits_with_length(samples: int) -> None:
    x = torch.full((samples, 1), 0.1, dtype=torch.float64)
    means, _ = selkern.class_means(x, torch.zeros(samples, dtype=torch.int64), 1)
    torch.testing.assert_close(means[0, 0], x[0, 0], rtol=1e-13, atol=0)
