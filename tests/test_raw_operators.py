"""The raw operators: what torch's own checks say of them, and their own refusals."""

from __future__ import annotations

import random
import re

import pytest
import torch
from cases import LAYOUTS, NUM_CLASSES, SPARSE_LABELS, case_name, normal, uniform
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.library import opcheck

X = torch.rand(4, 3, 2, 2)
ROWS = torch.rand(4, 3)
LABELS = torch.tensor([0, 1, 2, 1])

RAW_MAPS = [
    ((4, 3, 7, 5), layout)
    for layout in LAYOUTS
    if layout not in ("every_second_position", "without_first_position")
] + [
    (shape, layout)
    for shape in [(4, 3), (1, 1, 1, 1), (0, 3, 2, 2), (2, 1, 3, 3), (2, 5, 1, 1), (3, 4, 6)]
    for layout in ("contiguous", "units_last")
]


class TestOpcheck:
    @pytest.mark.parametrize("case", RAW_MAPS, ids=case_name)
    def test_pooling(self, case: tuple) -> None:
        shape, layout = case
        x = normal(shape, torch.float32, layout)
        opcheck(torch.ops.selkern.spatial_mean.default, (x,))
        opcheck(torch.ops.selkern.relu_with_mean.default, (x,))
        y, mean = torch.ops.selkern.relu_with_mean(x)
        for incoming in [(y, mean), (None, mean), (x, None), (mean.sum().expand_as(y), None)]:
            opcheck(torch.ops.selkern.relu_with_mean_backward.default, (*incoming, y))
            opcheck(torch.ops.selkern.relu_with_mean_backward.default, (*incoming, x))

    @pytest.mark.parametrize(
        "case", [case for case in RAW_MAPS if "expanded" not in case[1]], ids=case_name
    )
    def test_in_place(self, case: tuple) -> None:
        opcheck(
            torch.ops.selkern.relu_with_mean_.default, (normal(case[0], torch.float32, case[1]),)
        )

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
    @pytest.mark.parametrize("layout", ["contiguous", "samples_last", "every_second_unit"])
    @pytest.mark.parametrize("integer", [torch.int64, torch.int32])
    def test_class_means(self, integer: torch.dtype, layout: str, dtype: torch.dtype) -> None:
        x, labels = uniform((8, 5), dtype, layout), SPARSE_LABELS.to(integer)
        opcheck(torch.ops.selkern.class_means.default, (x, labels, NUM_CLASSES, -100))
        means, counts = torch.ops.selkern.class_means(x, labels, NUM_CLASSES, -100)
        opcheck(
            torch.ops.selkern.class_means_backward.default, (means, labels, counts, -100, dtype)
        )

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
    @pytest.mark.parametrize("layout", ["contiguous", "units_last", "every_second_unit"])
    def test_selectivity(self, layout: str, dtype: torch.dtype) -> None:
        layers = [
            uniform((8, 5, 2, 3), dtype, layout),
            uniform((8, 3), torch.float32, layout),
            uniform((8, 2, 4), dtype, layout),
        ]
        arguments = (layers, SPARSE_LABELS, NUM_CLASSES, 1e-6, -100)
        opcheck(torch.ops.selkern.selectivity.default, arguments)
        loss, _, *per_unit, winner, counts = torch.ops.selkern.selectivity(*arguments)
        index, maximum, rest = per_unit
        sizes = ([5, 3, 2], [6, 1, 4], 1e-6, -100, dtype)
        for incoming in [(loss, None, None, None), (None, index, maximum, rest)]:
            opcheck(
                torch.ops.selkern.selectivity_backward.default,
                (*incoming, maximum, rest, winner, counts, SPARSE_LABELS, *sizes),
            )


class TestWithoutThePythonChecks:
    """What reaches a kernel directly must not read or write out of bounds."""

    def test_shapes_that_do_not_fit(self) -> None:
        ops = torch.ops.selkern
        y, mean = ops.relu_with_mean(X)
        for arguments in [
            (y[:2], None, y),
            (None, mean[:, :2], y),
            (None, mean.double(), y),
            (y.double(), None, y),
        ]:
            with pytest.raises(ValueError, match="must have"):
                ops.relu_with_mean_backward(*arguments)
        with pytest.raises(ValueError, match="must have shape"):
            ops.class_means(X, LABELS, 3, -100)

    def test_labels_that_do_not_fit_the_counts(self) -> None:
        means, counts = torch.ops.selkern.class_means(ROWS, LABELS, 3, -100)
        with pytest.raises(ValueError, match="got 2 at row 2"):
            torch.ops.selkern.class_means_backward(
                means[:2], LABELS, counts[:2], -100, torch.float32
            )

    @pytest.mark.parametrize(("units", "positions"), [([2], [1]), ([4], [1]), ([3, 3], [1])])
    def test_units_that_do_not_add_up(self, units: list[int], positions: list[int]) -> None:
        ops = torch.ops.selkern
        loss, _, _, maximum, rest, winner, counts = ops.selectivity([ROWS], LABELS, 3, 1e-6, -100)
        with pytest.raises(ValueError, match="units"):
            ops.selectivity_backward(
                *(loss, None, None, None, maximum, rest, winner, counts, LABELS),
                *(units, positions, 1e-6, -100, torch.float32),
            )

    @pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.complex64], ids=str)
    def test_dtypes_without_a_kernel(self, dtype: torch.dtype) -> None:
        expected = "must be float16, bfloat16, float32 or float64, got " + case_name(dtype)
        with pytest.raises(ValueError, match=expected):
            torch.ops.selkern.spatial_mean(torch.zeros(2, 3, 4, dtype=dtype))

    @pytest.mark.parametrize(
        ("name", "arguments", "message"),
        [
            (
                "relu_with_mean_backward",
                (X[:2].double(), None, X),
                "grad_y must have the shape and dtype of y, got [2, 3, 2, 2] of float64",
            ),
            (
                "relu_with_mean_backward",
                (None, ROWS[0], X),
                "grad_mean must have shape [N, C] and the dtype of the mean, got [3] of float32",
            ),
            (
                "class_means",
                (ROWS, LABELS[:3], 3, -100),
                "labels must have shape [4], got [3]",
            ),
            (
                "class_means",
                (ROWS, LABELS.short(), 3, -100),
                "labels must be int64 or int32, got int16",
            ),
            (
                "class_means_backward",
                (ROWS, LABELS, LABELS.int(), -100, torch.float32),
                "grad must have shape [K, C] and counts be int64 [K], got [4, 3] and [4] of int32",
            ),
            (
                "class_means_backward",
                (ROWS, LABELS, LABELS, -100, torch.float64),
                "grad must be float64 for float64, got float32",
            ),
            (
                "selectivity",
                ([ROWS, ROWS[:3]], LABELS, 3, 1e-6, -100),
                "activations must have the same number of samples, got 3 and 4",
            ),
            ("eigvalsh", (X[0, :, :1],), "a must have shape [B, M, M], got [3, 1, 2]"),
            ("eigvalsh", (ROWS[0, 0],), "a must have shape [B, M, M], got []"),
            ("eigh", (X[0].half(),), "a must be float32 or float64, got float16"),
            (
                "rayleigh_quotients",
                (X[0], X),
                "vectors must be like a, got [4, 3, 2, 2] of float32",
            ),
            (
                "power_law_penalty",
                (ROWS, ROWS[0], 1.0, 1, 2),
                "kappa must hold one value for each spectrum, in its dtype, got [3] of float32",
            ),
            (
                "power_law_penalty",
                (LABELS[None], None, 1.0, 1, 2),
                "spectrum must be float32 or float64, got int64",
            ),
        ],
    )
    def test_what_came_is_told(self, name: str, arguments: tuple, message: str) -> None:
        with pytest.raises(ValueError, match=re.escape(message) + "$"):
            getattr(torch.ops.selkern, name)(*arguments)


def _random_slice(generator: random.Random) -> torch.Tensor:
    """Maps cut out of larger ones, with their axes in any order: every stride there is."""
    sizes = [generator.choice([1, 2, 3, 5]) for _ in range(generator.choice([2, 3, 4, 5]))]
    x = torch.randn(*sizes).permute(generator.sample(range(len(sizes)), len(sizes)))
    for axis in range(x.dim()):
        start = generator.randrange(x.shape[axis])
        step = generator.choice([1, 1, 2])
        x = x[(slice(None),) * axis + (slice(start, None, step),)]
    return x


@pytest.mark.parametrize("seed", range(200))
def test_fake_kernels_know_the_strides(seed: int) -> None:
    x = _random_slice(random.Random(seed))
    y, mean = torch.ops.selkern.relu_with_mean(x)
    with FakeTensorMode() as mode:
        fake_y, fake_mean = torch.ops.selkern.relu_with_mean(mode.from_tensor(x))
    assert fake_y.stride() == y.stride(), (x.shape, x.stride())
    assert fake_mean.stride() == mean.stride()
