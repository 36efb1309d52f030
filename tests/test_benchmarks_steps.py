"""Whole training steps as works, of small batches."""

from __future__ import annotations

import pytest

pytest.importorskip("selkern._benchmarks")

from selkern._benchmarks import measure
from selkern._benchmarks.works import TRAINING
from selkern._benchmarks.works.mlp_step import MLPStep
from selkern._benchmarks.works.network_step import PLAIN, PLAIN_AGAIN, NetworkStep
from selkern._benchmarks.works.training import TrainingStep

SIZES = {TrainingStep: {"samples": 8}, MLPStep: {"samples": 30, "units": 14}}


def small(work: type[NetworkStep]) -> type[NetworkStep]:
    return type(work.__name__, (work,), {**SIZES[work], "quick_rounds": 2})


def test_every_step_is_one_of_a_network() -> None:
    assert set(TRAINING) == set(SIZES)


@pytest.mark.parametrize("work", SIZES, ids=lambda work: work.name)
class TestNetworkStep:
    def test_contenders_agree_with_float64(self, work: type[NetworkStep]) -> None:
        results = measure.measure(small(work), quick=True)
        assert {row["contender"] for row in results["rows"]} == set(work.contenders)
        assert results["left_out"] == {}
        assert len(results["targets"]) == len(work.targets)

    def test_contenders_train_networks_of_their_own_alike(self, work: type[NetworkStep]) -> None:
        step = small(work)("cpu")
        for label in step.contenders:
            for _ in range(3):
                step.repetition(label)()
        plain = step.losses(PLAIN)
        assert plain == step.losses(PLAIN_AGAIN)
        for label, entry in step.contenders.items():
            losses = step.losses(label)
            if entry.role not in ("plain", "noise"):
                assert losses["first"] > plain["first"]
            assert losses["last"] < losses["first"]
