"""The CUDA kernels against float64: executed on the CPU, and on a GPU where there is one."""

from __future__ import annotations

import pytest
import torch
from cases import (
    DTYPES,
    LABELS,
    MAPS,
    NUM_CLASSES,
    POSITIONLESS,
    ROWS,
    SPARSE_LABELS,
    assert_matches_reference,
    case_name,
    normal,
    uniform,
    zeros_without_memory,
)
from torch import Tensor

import selkern
from selkern import reference

# Larger than a block takes: several blocks a map, several maps a block, parts of maps that differ.
LARGE_MAPS = [
    (shape, layout)
    for shape in [
        (5, 300, 7, 7),  # many maps a block
        (3, 65, 32, 32),  # a few
        (2, 3, 65, 67),  # one
        (1, 2, 97, 95),  # a part of one
        (1, 1, 300, 301),
        (2, 72, 20, 20),  # vectors of units, in parts
        (2, 520, 3, 3),
        (300, 8, 1, 2),
    ]
    for layout in ("contiguous", "units_last", "without_first_sample", "without_first_unit")
]
MANY_ROWS = [((700, 6), "contiguous"), ((70, 1100), "contiguous"), ((3, 2048), "every_second_unit")]
SELECTIVITY = ["class_means", "selectivity_index", "mean_selectivity"]


@pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
@pytest.mark.parametrize("case", ROWS + MAPS + LARGE_MAPS + MANY_ROWS, ids=case_name)
class TestEveryInput:
    def test_pooling(self, case: tuple, dtype: torch.dtype, device: torch.device) -> None:
        x = normal(case[0], dtype, case[1], device)
        scale = reference.spatial_mean(x.double().abs()).clamp(min=1e-30)
        assert_matches_reference("spatial_mean", x, value_scale=scale)
        assert_matches_reference("relu_with_mean", x)

    def test_selectivity(self, case: tuple, dtype: torch.dtype, device: torch.device) -> None:
        x = uniform(case[0], dtype, case[1], device)
        labels = LABELS["partly_ignored"](case[0][0], 4).to(device)
        for name in SELECTIVITY:
            assert_matches_reference(name, x, labels, 4)


@pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
@pytest.mark.parametrize("shape", POSITIONLESS, ids=case_name)
def test_maps_without_positions_have_no_mean(
    shape: tuple, dtype: torch.dtype, device: torch.device
) -> None:
    x = uniform(shape, dtype, device=device)
    assert selkern.spatial_mean(x).isnan().all()
    assert_matches_reference("relu_with_mean", x)


# ----------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize("num_classes", [1, 2, 6, 40])
@pytest.mark.parametrize("pattern", LABELS)
def test_every_pattern_of_labels(pattern: str, num_classes: int, device: torch.device) -> None:
    if pattern == "odd_classes" and num_classes == 1:
        pattern = "one_class"
    for samples in (23, 300):
        labels = LABELS[pattern](samples, num_classes).to(device)
        for shape in [(samples, 40), (samples, 5, 3, 3)]:
            for name in SELECTIVITY:
                x = uniform(shape, torch.float32, device=device)
                assert_matches_reference(name, x, labels, num_classes)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=case_name)
@pytest.mark.parametrize("samples", [1, 2, 7, 8, 9, 31, 33, 255, 256, 257, 1000])
def test_every_size_of_batch(samples: int, dtype: torch.dtype, device: torch.device) -> None:
    """Runs of a class begin and end anywhere among the warps that share the samples."""
    for num_classes in (2, 3, 1 + samples // 2):
        labels = LABELS["partly_ignored"](samples, num_classes).to(device)
        for name in SELECTIVITY:
            x = uniform((samples, 34), dtype, device=device)
            assert_matches_reference(name, x, labels, num_classes)


@pytest.mark.parametrize("num_classes", [1023, 1024, 1025, 70_000])
def test_many_classes(num_classes: int, device: torch.device) -> None:
    labels = LABELS["partly_ignored"](400, num_classes).to(device)
    labels[1:9] = num_classes - 1
    x = uniform((400, 12), torch.float32, device=device)
    means, counts = selkern.class_means(x, labels, num_classes)
    expected, expected_counts = reference.class_means(x.double(), labels, num_classes)
    torch.testing.assert_close(means.double(), expected, rtol=2e-6, atol=2e-6)
    assert torch.equal(counts, expected_counts)
    assert_matches_reference("selectivity_index", x, labels, num_classes)


@pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
def test_a_block_of_several_classes(dtype: torch.dtype, device: torch.device) -> None:
    labels = 69_000 + torch.arange(400).to(device) // 2 * 2 % 300
    x = uniform((400, 264), dtype, device=device)
    means, counts = selkern.class_means(x, labels, 70_000)
    expected, expected_counts = reference.class_means(x.double(), labels, 70_000)
    torch.testing.assert_close(means.double(), expected, rtol=2e-6, atol=2e-6)
    assert torch.equal(counts, expected_counts)
    labels[3] = -5
    assert device.type == "cpu" or selkern.class_means(x, labels, 70_000)[0].isnan().all()


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32], ids=case_name)
@pytest.mark.parametrize("bad", [-1, NUM_CLASSES, 2**31 - 1])
def test_labels_out_of_range_make_everything_nan(
    bad: int, dtype: torch.dtype, device: torch.device
) -> None:
    labels = SPARSE_LABELS.to(device, dtype, copy=True)
    labels[4] = bad
    x = uniform((8, 5, 3, 3), torch.float32, device=device).requires_grad_()
    means, _ = selkern.class_means(x, labels, NUM_CLASSES)
    index = selkern.selectivity_index(x, labels, NUM_CLASSES)
    loss = selkern.mean_selectivity(x, labels, NUM_CLASSES)
    for result in (means, index, loss):
        assert result.isnan().all()
        (gradient,) = torch.autograd.grad(result.sum(), x)
        assert gradient[4].isnan().all()
        # A class mean has no share in other samples; the rest has one in all that take part.
        assert result is means or gradient[labels != -100].isnan().all()


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32], ids=case_name)
def test_a_check_of_labels_can_be_asked_for(
    dtype: torch.dtype, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELKERN_CHECK", "1")
    labels = SPARSE_LABELS.to(device, dtype, copy=True)
    x = uniform((8, 5), torch.float32, device=device)
    selkern.class_means(x, labels, NUM_CLASSES)
    labels[3], labels[6] = 17, -3
    for operator in (selkern.class_means, selkern.selectivity_index, selkern.mean_selectivity):
        with pytest.raises(ValueError, match="got 17 at row 3"):
            operator(x, labels, NUM_CLASSES)


# --------------------------------------------------------------------------------- special values


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 0.0, -0.0])
@pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
@pytest.mark.parametrize("layout", ["contiguous", "units_last"])
@pytest.mark.parametrize("shape", [(3, 37, 5, 7), (3, 40, 5, 7), (3, 37, 70, 70)], ids=case_name)
def test_special_values_stay_in_their_unit(
    shape: tuple, layout: str, dtype: torch.dtype, value: float, device: torch.device
) -> None:
    x = normal(shape, dtype, device=device)
    x[1, ::3, 2, 5] = value
    if layout == "units_last":
        x = x.to(memory_format=torch.channels_last)
    y, mean = selkern.relu_with_mean(x)
    torch.testing.assert_close(y, torch.relu(x), rtol=0, atol=0, equal_nan=True)
    touched = torch.zeros(shape[:2], dtype=torch.bool, device=device)
    touched[1, ::3] = True
    not_finite = not torch.isfinite(torch.tensor(value))
    positive = value != -torch.inf
    assert torch.equal(~mean.isfinite(), touched & not_finite & positive)
    assert torch.equal(~selkern.spatial_mean(x).isfinite(), touched & not_finite)
    ones = torch.ones_like(y)
    gradient = selkern._pooling_autograd._ops.relu_with_mean_backward(ones, None, y)
    assert torch.equal(gradient, torch.where(y <= 0, 0.0, ones))  # at NaN it passes


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
@pytest.mark.parametrize("row", [0, 4, 7])
def test_a_value_that_is_not_finite_touches_its_unit_alone(
    row: int, dtype: torch.dtype, value: float, device: torch.device
) -> None:
    labels = torch.tensor([2, 1, 0, 2, 1, 3, 0, 1], device=device)
    x = uniform((8, 35), dtype, device=device)
    expected = selkern.selectivity_index(x, labels, NUM_CLASSES)
    x[row, 33] = value
    index = selkern.selectivity_index(x, labels, NUM_CLASSES)
    assert not index[33].isfinite()
    index[33] = expected[33]
    assert torch.equal(index, expected)
    assert not selkern.mean_selectivity(x, labels, NUM_CLASSES).isfinite()


@pytest.mark.parametrize("labels", [[1, 1, 1], [-100, 2, -100], [-100, -100, -100]])
def test_fewer_than_two_classes_give_zero_and_no_gradient(
    labels: list[int], device: torch.device
) -> None:
    x = uniform((3, 4, 2, 2), torch.float32, device=device).requires_grad_()
    index = selkern.selectivity_index(x, torch.tensor(labels, device=device), 3)
    assert torch.equal(index, torch.zeros_like(index))
    (gradient,) = torch.autograd.grad(index.sum(), x)
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_dead_units_and_ties(device: torch.device) -> None:
    labels = torch.tensor([1, 0, 2, 2], device=device)
    x = torch.tensor([[0.0, 5.0], [0.0, 5.0], [0.0, 1.0], [0.0, 1.0]], device=device)
    x.requires_grad_()
    index = selkern.selectivity_index(x, labels, 3, eps=0.0)
    assert index[0] == 0
    (gradient,) = torch.autograd.grad(index.sum(), x)
    assert torch.equal(gradient[:, 0], torch.zeros(4, device=device))
    assert gradient[1, 1] > 0 > gradient[0, 1]  # the lowest of the classes that tie takes it all


# --------------------------------------------------------------------------------- layers, sizes


@pytest.mark.parametrize("layers", [1, 24, 25, 33, 220])
@pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
def test_any_number_of_layers(layers: int, dtype: torch.dtype, device: torch.device) -> None:
    labels = LABELS["partly_ignored"](6, 4).to(device)
    shapes = [(6, 1 + i % 40, *((), (3,), (2, 3))[i % 3]) for i in range(layers)]
    x = [uniform(shape, dtype, device=device).requires_grad_() for shape in shapes]
    exact = [a.detach().double().requires_grad_() for a in x]
    loss = selkern.mean_selectivity(x, labels, 4)
    expected = reference.mean_selectivity(exact, labels, 4)
    torch.testing.assert_close(loss.double(), expected, rtol=2e-6, atol=2e-6)
    tolerance = 1e-2 if dtype == torch.bfloat16 else 2e-3 if dtype == torch.float16 else 1e-5
    for gradient, of_exact in zip(
        torch.autograd.grad(loss, x), torch.autograd.grad(expected, exact), strict=True
    ):
        torch.testing.assert_close(
            gradient.double(),
            of_exact,
            rtol=tolerance,
            atol=tolerance * of_exact.abs().max().item(),
        )


def test_more_layers_than_fit_a_launch(device: torch.device) -> None:
    labels = torch.tensor([0, 1, 1], device=device)
    x = [uniform((3, 2), torch.float32, device=device).requires_grad_() for _ in range(1400)]
    loss = selkern.mean_selectivity(x, labels, 2)
    index = selkern.selectivity_index(x[0], labels, 2)
    torch.testing.assert_close(loss, index.mean())
    gradients = torch.autograd.grad(loss, x)
    (expected,) = torch.autograd.grad(index.mean() / len(x), x[0])
    for gradient in (gradients[0], gradients[673], gradients[1399]):
        torch.testing.assert_close(gradient, expected)


def test_layers_of_different_dtypes_and_layouts(device: torch.device) -> None:
    labels = LABELS["in_turn"](6, 3).to(device)
    shapes = [(6, 5), (6, 33, 4, 4), (6, 8, 3, 3), (6, 64, 7)]
    for dtypes in (DTYPES, [torch.float16, torch.bfloat16, torch.float32, torch.float32]):
        layouts = ["contiguous", "units_last", "without_first_unit", "units_last"]
        x = [uniform(*case, device) for case in zip(shapes, dtypes, layouts)]
        loss = selkern.mean_selectivity(x, labels, 3)
        assert loss.dtype == (torch.float64 if torch.float64 in dtypes else torch.float32)
        expected = reference.mean_selectivity([a.double() for a in x], labels, 3)
        torch.testing.assert_close(loss.double(), expected, rtol=2e-6, atol=0)


def test_strides_beyond_32_bits(device: torch.device) -> None:
    if device.type == "cuda":
        memory = torch.zeros(2**31 + 4096, dtype=torch.float16, device=device)
    else:
        memory = zeros_without_memory(2**31 + 4096)
    for stride in (2**31 + 8, 2**31 + 5):
        for inner in ((49, 7, 1), (1, 7 * 16, 16), (1, 7 * 17, 17)):
            x = memory.as_strided((2, 16, 7, 7), (stride, *inner))
            values = normal((2, 16, 7, 7), torch.float16, device=device)
            x.copy_(values)
            assert_matches_reference("spatial_mean", x)
            y, mean = selkern.relu_with_mean(x)
            assert torch.equal(y, torch.relu(values))
            torch.testing.assert_close(mean, selkern.spatial_mean(torch.relu(values)))
        rows = memory.as_strided((2, 40), (stride, 1))
        rows.copy_(uniform((2, 40), torch.float16, device=device))
        labels = torch.tensor([1, 0], device=device)
        assert_matches_reference("class_means", rows, labels, 2)
        assert_matches_reference("selectivity_index", rows, labels, 2)


def test_gradients_that_are_missing_expanded_or_strided(device: torch.device) -> None:
    backward = selkern._pooling_autograd._ops.relu_with_mean_backward
    for layout in ("contiguous", "units_last"):
        for shape in [(3, 5, 7, 7), (3, 8, 4, 4), (2, 3, 70, 70), (6, 9)]:
            memory = torch.empty(1 + normal(shape, torch.float32).numel(), device=device)
            # On a boundary of 16 bytes, and off one.
            y = torch.relu(normal(shape, torch.float32, layout, device))
            if layout == "contiguous":
                y = memory[1:].view(shape).copy_(y)
            grad_y = torch.randn(*shape[:1], 2 * shape[1], *shape[2:], device=device)[:, ::2]
            grad_mean = torch.randn(shape[0], 3, device=device)[:, :1].expand(shape[:2])
            positions = y[0, 0].numel()
            share = (grad_mean / positions).view(*shape[:2], *(1,) * (len(shape) - 2))
            for incoming in (grad_y, grad_y[:1, :1].expand(shape), grad_y.contiguous(), None):
                for of_mean in (grad_mean, grad_mean.contiguous(), None):
                    grad = torch.zeros_like(y) if incoming is None else incoming
                    expected = torch.where(y > 0, grad + (0 if of_mean is None else share), 0)
                    actual = backward(incoming, of_mean, y)
                    torch.testing.assert_close(actual, expected)
                    assert actual.stride() == y.stride()


def test_means_of_many_samples_lose_no_digits(device: torch.device) -> None:
    """A plain float32 sum of these would be off by 1e-4."""
    x = torch.full((40_000, 8), 0.1, device=device)
    x[::7] = 1000.0
    labels = torch.zeros(40_000, dtype=torch.int64, device=device)
    assert_matches_reference("class_means", x, labels, 1)
    assert_matches_reference("spatial_mean", x.T.reshape(1, 8, 200, 200))
    assert_matches_reference(
        "spatial_mean", x.T.reshape(1, 8, 200, 200).contiguous(memory_format=torch.channels_last)
    )


def extremes(x: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Return the largest class mean and the mean of the others, which no public function shows."""
    operators = selkern._selectivity_autograd._ops
    _, _, _, maximum, rest, _, _ = operators.selectivity([x], labels, num_classes, 1e-6, -100)
    return maximum, rest


def test_means_of_many_positions_lose_no_digits(device: torch.device) -> None:
    labels = torch.zeros(1, dtype=torch.int64, device=device)
    x = torch.full((1, 2, 2**20), 0.1, device=device)
    x[:, :, ::7] = 1000.0
    expected = x.double().mean(2)[0]
    for maps in (x, x.movedim(1, 2).contiguous().movedim(2, 1)):
        maximum, _ = extremes(maps, labels, 1)
        torch.testing.assert_close(maximum.double(), expected, rtol=2e-7, atol=0)
        torch.testing.assert_close(
            selkern.spatial_mean(maps)[0].double(), expected, rtol=2e-7, atol=0
        )


def test_the_mean_of_many_classes_loses_no_digits(device: torch.device) -> None:
    classes = 100_000
    x = torch.full((classes, 3), 0.1, device=device)
    x[::5] = 100.0
    x[77] = 1000.0
    _, rest = extremes(x, torch.arange(classes, device=device), classes)
    expected = (x.double().sum(0) - 1000.0) / (classes - 1)
    torch.testing.assert_close(rest.double(), expected, rtol=2e-7, atol=0)


@pytest.mark.parametrize("eps", [0.0, 0.5, 1e30])
def test_any_eps(eps: float, device: torch.device) -> None:
    x, labels = uniform((9, 4), torch.float32, device=device), LABELS["random"](9, 3).to(device)
    assert_matches_reference("selectivity_index", x, labels, 3, eps=eps)


def test_an_eps_beyond_float32_leaves_no_selectivity(device: torch.device) -> None:
    x = uniform((9, 4), torch.float32, device=device).requires_grad_()
    index = selkern.selectivity_index(x, LABELS["random"](9, 3).to(device), 3, eps=1e39)
    (gradient,) = torch.autograd.grad(index.sum(), x)
    for result in (index, gradient):
        torch.testing.assert_close(result, torch.zeros_like(result), rtol=0, atol=1e-35)


def test_means_whose_sum_is_too_large(device: torch.device) -> None:
    x = torch.tensor([[3e38], [2e38]], device=device)
    labels = torch.tensor([0, 1], device=device)
    assert_matches_reference("selectivity_index", x, labels, 2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=case_name)
def test_sums_of_values_near_the_largest_stay_finite(
    dtype: torch.dtype, device: torch.device
) -> None:
    largest = torch.finfo(dtype).max
    for shape in [(4, 3, 7, 7), (4, 2, 80, 80), (4, 8, 20, 20)]:
        x = torch.full(shape, largest, dtype=dtype, device=device)
        for maps in (x, x.to(memory_format=torch.channels_last)):
            means = [selkern.spatial_mean(maps), selkern.relu_with_mean(maps)[1]]
            means.append(selkern.class_means(maps, torch.zeros(4).long().to(device), 1)[0])
            for mean in means:
                torch.testing.assert_close(mean, torch.full_like(mean, largest))
    rows = torch.full((50, 3), largest, dtype=dtype, device=device)
    for result in extremes(rows, torch.arange(50, device=device) // 2, 25):
        torch.testing.assert_close(result, torch.full_like(result, largest))


def test_relu_in_place(device: torch.device) -> None:
    for layout in ("contiguous", "units_last", "every_second_unit"):
        for shape in [(3, 5, 7, 7), (2, 8, 70, 70)]:
            x = normal(shape, torch.float32, layout, device)
            expected, expected_mean = selkern.relu_with_mean(x)
            mean = selkern._pooling_autograd._ops.relu_with_mean_(x)
            assert torch.equal(x, expected)
            assert torch.equal(mean, expected_mean)


def test_first_and_second_derivatives(device: torch.device) -> None:
    labels = torch.tensor([0, 1, 2, 1, 0], device=device)
    x = uniform((5, 3, 2, 2), torch.float64, device=device).requires_grad_()

    def loss(x: Tensor) -> Tensor:
        y, mean = selkern.relu_with_mean(x)
        return selkern.mean_selectivity([y, mean, x.square()], labels, 3) + mean.sum()

    assert torch.autograd.gradcheck(loss, x)
    assert torch.autograd.gradgradcheck(loss, x)
