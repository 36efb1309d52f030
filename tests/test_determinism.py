"""The same bits from run to run, for any number of threads, with every instruction set."""

from __future__ import annotations

import pytest
import torch
from cases import (
    DTYPES,
    LABELS,
    LAYOUTS,
    MAPS,
    ROWS,
    all_results,
    assert_matches_reference,
    assert_same_bits,
    case_name,
    normal,
    uniform,
)
from conftest import CAPABILITIES

import selkern
from selkern import _C

# Large enough to be shared among threads; no size is a multiple of a vector.
SHAPES = [(64, 37, 19, 17), (50, 131, 3, 3), (201, 517)]
LAYOUT_NAMES = ["contiguous", "units_last", "every_second_sample"]


@pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
@pytest.mark.parametrize("layout", LAYOUT_NAMES)
@pytest.mark.parametrize("shape", SHAPES, ids=case_name)
class TestSameBits:
    def test_from_run_to_run(self, shape: tuple, layout: str, dtype: torch.dtype) -> None:
        x = normal(shape, dtype, layout)
        expected = all_results(x)
        assert_same_bits(all_results(x), expected)
        moved = LAYOUTS[layout](torch.cat([x[:1], x])[1:].clone())
        assert_same_bits(all_results(moved), expected)

    def test_with_any_number_of_threads(
        self, shape: tuple, layout: str, dtype: torch.dtype, restore_threads: None
    ) -> None:
        x = uniform(shape, dtype, layout)
        torch.set_num_threads(1)
        expected = all_results(x)
        for threads in (2, 3, 8):
            torch.set_num_threads(threads)
            assert_same_bits(all_results(x), expected)

    def test_with_every_instruction_set(
        self, shape: tuple, layout: str, dtype: torch.dtype, restore_capability: None
    ) -> None:
        x = normal(shape, dtype, layout)
        _C.set_cpu_capability("baseline")
        expected = all_results(x)
        for name in CAPABILITIES:
            _C.set_cpu_capability(name)
            assert_same_bits(all_results(x), expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
@pytest.mark.parametrize("case", ROWS + MAPS, ids=case_name)
class TestEveryInstructionSet:
    def test_pooling(self, capability: str, case: tuple, dtype: torch.dtype) -> None:
        x = uniform(case[0], dtype, case[1])
        assert_matches_reference("spatial_mean", x)
        assert_matches_reference("relu_with_mean", x - 0.25)

    def test_selectivity(self, capability: str, case: tuple, dtype: torch.dtype) -> None:
        x, labels = uniform(case[0], dtype, case[1]), LABELS["partly_ignored"](case[0][0], 4)
        assert_matches_reference("class_means", x, labels, 4)
        assert_matches_reference("selectivity_index", x, labels, 4)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 0.0, -0.0])
@pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
def test_special_values_with_every_instruction_set(
    capability: str, dtype: torch.dtype, value: float
) -> None:
    for layout in LAYOUT_NAMES:
        x = normal((3, 37, 5, 7), dtype)
        x[1, ::3, 2, 5] = value
        x = LAYOUTS[layout](x)
        y, mean = selkern.relu_with_mean(x)
        torch.testing.assert_close(y, torch.relu(x), rtol=0, atol=0, equal_nan=True)
        touched = torch.zeros(3, 37, dtype=torch.bool)
        touched[1, ::3] = True
        expected = touched if value != value or value == torch.inf else torch.zeros_like(touched)
        assert torch.equal(~mean.isfinite(), expected)


def test_the_best_instruction_set_comes_first() -> None:
    assert CAPABILITIES[-1] == "baseline"
    best_first = [name for name in ("avx512", "avx2", "baseline") if name in CAPABILITIES]
    assert best_first == CAPABILITIES
    assert _C.cpu_capability() in CAPABILITIES
    assert set(CAPABILITIES) <= set(selkern.build_info()["cpu_capabilities"])


def test_switching_shows_in_the_build_info(capability: str) -> None:
    assert _C.cpu_capability() == capability
    assert selkern.build_info()["cpu_capability"] == capability


@pytest.mark.parametrize("name", ["", "AVX2", "sse9"])
def test_unknown_instruction_sets_are_refused(name: str) -> None:
    before = _C.cpu_capability()
    with pytest.raises(ValueError, match="baseline"):
        _C.set_cpu_capability(name)
    assert _C.cpu_capability() == before
