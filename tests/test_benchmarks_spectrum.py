"""The works of the spectrum family, at a small size, and the baselines they compare with."""

from __future__ import annotations

import importlib

import pytest
import torch

pytest.importorskip("selkern._benchmarks")

from selkern._benchmarks import crossover, losses, measure
from selkern._benchmarks.report import readme_table
from selkern._benchmarks.work import Disagreement, Outcome, Work, contender
from selkern._benchmarks.works import HEADLINES, SPECTRUM, WORKS, vendor
from selkern._benchmarks.works.frozen_basis import FrozenBasis
from selkern._benchmarks.works.linalg import Eigenpairs, Eigenvalues
from selkern._benchmarks.works.mlp_step import EXACT, FROZEN, PLAIN, MLPStep

import selkern


def small(work: type[Work]) -> type[Work]:
    if issubclass(work, Eigenvalues):
        members = {"batch": 3, "size": 5}
    elif issubclass(work, FrozenBasis | MLPStep):
        members = {"samples": 30, "units": 14}
    else:
        *batch, samples, units = work.shape
        members = {"shape": (*(2 for _ in batch), *((14, 20) if samples < units else (20, 13)))}
    return type(work.__name__, (work,), {**members, "quick_rounds": 1})


@pytest.mark.parametrize("work", [*SPECTRUM, MLPStep], ids=lambda work: work.name)
def test_contenders_agree_with_float64(work: type[Work]) -> None:
    results = measure.measure(small(work), quick=True)
    measured = {row["contender"] for row in results["rows"]}
    assert measured == {label for label, entry in work.contenders.items() if not entry.compiled}
    assert len(results["targets"]) == len(work.targets)


def test_times_are_of_one_matrix() -> None:
    for work in SPECTRUM:
        if issubclass(work, Eigenvalues):
            assert small(work)("cpu").calls == 3


class WrongVectors(Eigenpairs):
    name = title = "wrong vectors"
    batch, size = 2, 4

    @contender("stretched", "selkern")
    def stretched(self) -> Outcome:
        values, vectors = torch.linalg.eigh(self.matrices)
        return self._outcome_of(values, 1.01 * vectors)


def test_vectors_that_are_not_orthonormal_are_refused() -> None:
    with pytest.raises(Disagreement, match="'stretched' differs from float64"):
        WrongVectors("cpu").check("stretched")


def test_vectors_of_either_sign_are_accepted() -> None:
    class OtherSign(WrongVectors):
        @contender("stretched", "selkern")
        def stretched(self) -> Outcome:
            values, vectors = torch.linalg.eigh(self.matrices)
            return self._outcome_of(values, -vectors)

    OtherSign("cpu").check("stretched")


def test_readme_shows_headlines_with_their_floor() -> None:
    assert set(HEADLINES) < set(WORKS)
    frozen = [work for work in SPECTRUM if issubclass(work, FrozenBasis)]
    measured = [measure.measure(small(work), quick=True) for work in frozen]
    results = {**measure.measure_all([]), "works": measured}
    _, _, row, *_ = readme_table(results).splitlines()
    assert sum(work["title"] in readme_table(results) for work in measured) == 1
    assert row.split("|")[-2].strip() != "-"


def test_every_trainer_sees_the_regularizer() -> None:
    work = small(MLPStep)("cpu")
    plain = work.check(PLAIN).loss
    for label in (EXACT, FROZEN):
        assert work.check(label).loss > plain


@pytest.mark.parametrize("shape", [(14, 20), (3, 14, 20), (20, 13), (13, 13)])
def test_baseline_spectra(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float64)
    singular = torch.linalg.svdvals(x - x.mean(-2, keepdim=True))
    expected = singular[..., : shape[-2] - 1].square() / (shape[-2] - 1)
    torch.testing.assert_close(losses.covariance_spectrum(x), expected)
    torch.testing.assert_close(losses.careful_spectrum(x), expected)
    if shape[-2] <= shape[-1]:
        torch.testing.assert_close(losses.gram_spectrum(x), expected)


@pytest.mark.parametrize("shape", [(14, 20), (2, 14, 20), (20, 13)])
def test_gradient_of_the_careful_spectrum(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(losses.careful_spectrum, x)


def test_baseline_spectra_along_a_basis() -> None:
    x, basis = torch.randn(30, 14, dtype=torch.float64), torch.randn(14, 13, dtype=torch.float64)
    expected = (x @ basis).var(0).sort(descending=True).values
    torch.testing.assert_close(losses.published_spectrum(x, basis), expected)
    torch.testing.assert_close(losses.frozen_spectrum(x, basis), expected)


def test_baseline_penalties() -> None:
    spectrum = torch.rand(3, 20, dtype=torch.float64).sort(descending=True).values
    spectrum[1, 15:] = 0
    expected = selkern.reference.power_law_penalty(spectrum, width=25)
    torch.testing.assert_close(losses.power_law_page(spectrum, 25), expected)
    published = torch.stack([losses.published_penalty(row, 25) for row in spectrum])
    torch.testing.assert_close(published, expected)


class TestCrossover:
    def test_rows(self) -> None:
        found = {(1, 8): 2.0, (1, 16): 0.9, (1, 32): 3.0, (4, 8): 2.0, (4, 16): 2.0, (4, 32): 1.0}
        assert crossover.rows(found) == [(1, 8), (4, 16)]

    def test_a_larger_batch_limits_a_smaller_one(self) -> None:
        found = {(1, 8): 2.0, (1, 16): 2.0, (2, 8): 2.0, (2, 16): 1.0}
        assert crossover.rows(found) == [(1, 8)]

    def test_no_rows_where_ours_is_never_faster(self) -> None:
        assert crossover.rows({(1, 8): 1.0, (2, 8): 2.0}) == [(2, 8)]
        assert crossover.rows({(1, 8): 1.0}) == []

    def test_sizes_beyond_two_slow_ones_are_left_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(crossover, "_ratio", lambda *arguments: 4.0 / arguments[3])
        found = crossover.ratios(torch.float32, False, (1,), (8, 16, 32, 64))
        assert found == {(1, 8): 0.5, (1, 16): 0.25, (1, 32): 0.125}

    def test_command(self, capsys: pytest.CaptureFixture[str]) -> None:
        arguments = ["--dtype", "float32", "--batches", "2", "--sizes", "3", "--seconds", "0.001"]
        assert crossover.main(arguments) == 0
        output = capsys.readouterr().out
        assert output.count("rows:") == 2


def test_vendor_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", nothing)
    with pytest.raises(RuntimeError, match="CuPy cannot be imported"):
        vendor.eigh(torch.eye(2))
