"""Means over seeds with their intervals, and the verdicts that rest on them."""

from __future__ import annotations

import json
import math
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from selkern.study.findings import AGREES, CANNOT_BE_TOLD, DISAGREES, Finding, findings_table
from selkern.study.statistics import (
    LEAST_VALUES,
    Interval,
    correlation,
    interval,
    remark_on_intervals,
    slope,
)

pytest.importorskip("scipy")

NORMAL = NormalDist()


class TestStatistics:
    def test_an_interval_holds_the_mean_and_shrinks_with_more_values(self) -> None:
        values = np.random.default_rng(0).normal(3.0, 1.0, 400)
        few, many = interval(values[:10]), interval(values)
        for result, of in ((few, values[:10]), (many, values)):
            assert result.mean == pytest.approx(of.mean())
            assert result.low < result.mean < result.high
        assert many.high - many.low < (few.high - few.low) / 3
        standard_error = values.std() / 20
        assert many.high - many.low == pytest.approx(2 * 1.96 * standard_error, rel=0.1)

    def test_an_interval_is_corrected_for_bias_and_skew(self) -> None:
        values = np.array([1.0, 1.1, 1.3, 1.4, 2.0, 2.1, 9.0])
        drawn = np.random.default_rng(1).choice(values, (200_000, len(values))).mean(1)
        result = interval(values.tolist())
        bias = NORMAL.inv_cdf(float((drawn < values.mean()).mean()))
        without = np.array([np.delete(values, i).mean() for i in range(len(values))])
        differences = without.mean() - without
        skew = (differences**3).sum() / (6 * (differences**2).sum() ** 1.5)
        shares = []
        for share in (0.025, 0.975):
            shifted = bias + NORMAL.inv_cdf(share)
            shares.append(NORMAL.cdf(bias + shifted / (1 - skew * shifted)))
        assert (result.low, result.high) == pytest.approx(np.quantile(drawn, shares), rel=0.02)
        assert result.high > np.quantile(drawn, 0.975) * 1.05

    def test_the_remark_says_how_often_intervals_hold_the_mean(self) -> None:
        assert "held the mean in 83% of cases" in remark_on_intervals(5)
        assert "with 6 normal values" in remark_on_intervals(7)
        assert "An interval needs 5 seeds" in remark_on_intervals(LEAST_VALUES - 1)

    def test_is_the_same_every_time(self) -> None:
        assert interval([1.0, 2.0, 4.0, 8.0, 9.0]) == interval([1.0, 2.0, 4.0, 8.0, 9.0])

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ([], (None, None, 0)),
            ([1.0, 2.0, 3.0, 4.0], (None, None, 4)),
            ([2.0] * 5, (2.0, 2.0, 5)),
            ([2.0, 2.0, 2.0, 2.0, 2.0 + 1e-15], (2.0, 2.0, 5)),
            ([2.0, math.nan, 2.0, 2.0, 2.0, 2.0, math.inf], (2.0, 2.0, 5)),
        ],
    )
    def test_values_that_tell_nothing(self, values: list[float], expected: Any) -> None:
        result = interval(values)
        assert (result.low, result.high, result.count) == pytest.approx(expected)

    def test_correlation_is_that_of_ranks(self) -> None:
        assert correlation([1, 2, 3, 4], [1, 10, 100, 1000]) == pytest.approx(1)
        assert correlation([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
        # Ranks 1.5, 1.5, 3 and 1, 2, 3: covariance 1.5, variances 1.5 and 2.
        assert correlation([5, 5, 7], [1, 2, 3]) == pytest.approx(1.5 / math.sqrt(1.5 * 2))
        assert math.isnan(correlation([1, 1], [1, 2]))
        assert math.isnan(correlation([1], [2]))

    def test_slope_is_that_of_least_squares(self) -> None:
        assert slope([0, 1, 2], [1, 3, 5]) == pytest.approx(2)
        assert slope([0, 1, 2], [0, 0, 3]) == pytest.approx(1.5)
        assert math.isnan(slope([1, 1], [0, 2]))


class TestFindings:
    @pytest.mark.parametrize(
        ("ends", "is_above", "verdict"),
        [
            ((1.0, 2.0), True, AGREES),
            ((1.0, 2.0), False, DISAGREES),
            ((-2.0, -1.0), True, DISAGREES),
            ((-2.0, -1.0), False, AGREES),
            ((-1.0, 2.0), True, CANNOT_BE_TOLD),
            ((0.0, 2.0), True, CANNOT_BE_TOLD),
            ((None, None), True, CANNOT_BE_TOLD),
        ],
    )
    def test_the_whole_interval_decides(self, ends: Any, is_above: bool, verdict: str) -> None:
        finding = Finding("claim", "measure", Interval(0.5, *ends, 5), is_above)
        assert finding.verdict == verdict

    def test_what_was_not_measured_cannot_be_told(self) -> None:
        finding = Finding("claim", "measure", None, True, reason="no such images")
        assert finding.verdict == CANNOT_BE_TOLD
        assert json.loads(json.dumps(finding.as_data()))["reason"] == "no such images"
        assert "cannot be told**: no such images" in findings_table([finding])

    @pytest.mark.parametrize(
        ("values", "text"),
        [([], "could not be measured in any seed"), ([1.0], "1 of at least 5 seeds")],
    )
    def test_without_an_interval_it_says_why(self, values: list[float], text: str) -> None:
        finding = Finding("claim", "measure", interval(values), True)
        assert finding.verdict == CANNOT_BE_TOLD
        assert text in findings_table([finding])
        assert "nan" not in findings_table([finding])
        assert "NaN" not in json.dumps(finding.as_data())

    def test_the_table_holds_the_numbers(self) -> None:
        finding = Finding("claim", "measure", Interval(3.0, 2.6, 3.5, 8), True, 2.5, ".1f")
        assert findings_table([finding]).splitlines()[-1] == (
            "| claim | measure | above 2.5 | 3.0 [2.6, 3.5] | **agrees** |"
        )
