"""The works of the attacks, at a small size, and the steps they compare with."""

from __future__ import annotations

import importlib.util
import sys

import pytest
import torch

pytest.importorskip("selkern._benchmarks")

from selkern._benchmarks import measure, steps
from selkern._benchmarks.gpu_table import gpu_table
from selkern._benchmarks.report import readme_table
from selkern._benchmarks.work import COPY, Disagreement, Outcome, Work, contender
from selkern._benchmarks.works import ATTACKS, CUDA_WORKS, HEADLINES
from selkern._benchmarks.works.attack_steps import (
    EPS,
    IN_PLACE,
    AttackStep,
    LinfStep,
    attack_inputs,
    sizes,
)
from selkern._benchmarks.works.attacks import FOOLBOX, FUSED, PAGE, PLAIN, PGDAttack
from selkern._benchmarks.works.attacks_cuda import L2_STEPS, LINF_STEPS

from selkern import reference

HAS_FOOLBOX = importlib.util.find_spec("foolbox") is not None
NORMS = ("linf", "l2")


def small(work: type[Work], **members: object) -> type[Work]:
    if issubclass(work, AttackStep):
        size: dict[str, object] = {"shape": (5, 3, 8, 8)}
    else:
        size = {"samples": 6, "step_count": 3}
    return type(work.__name__, (work,), {**size, "quick_rounds": 2, "rounds": 2, **members})


@pytest.mark.parametrize("work", ATTACKS, ids=lambda work: work.name)
def test_contenders_agree_with_float64(work: type[Work], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    results = measure.measure(small(work))
    missing = set() if HAS_FOOLBOX else {FOOLBOX} & set(work.contenders)
    assert set(results["left_out"]) == missing
    assert {row["contender"] for row in results["rows"]} == set(work.contenders) - missing
    assert len(results["targets"]) == len(work.targets)
    for row in results["rows"]:
        assert (row["value_error"] is None) != (row["gradient_error"] is None)


def test_what_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "foolbox.attacks", None)
    results = measure.measure(small(PGDAttack), quick=True)
    assert results["left_out"] == {FOOLBOX: "foolbox cannot be imported"}


class TestSteps:
    @pytest.mark.parametrize("norm", NORMS)
    @pytest.mark.parametrize("write", ["page", "careful", "careful out", "in place"])
    def test_rivals_are_the_definition(self, norm: str, write: str) -> None:
        adv, grad, images = attack_inputs((5, 3, 8, 8), torch.Generator().manual_seed(1))
        eps, alpha = sizes(norm, 3 * 8 * 8)
        exact = (adv.double(), grad.double(), images.double())
        expected = reference.attacks.pgd_step(*exact, eps=eps, alpha=alpha, norm=norm)
        page, careful = steps.PAGES[norm], steps.CAREFUL[norm]
        if write == "page":
            result = page(adv, grad, images, eps, alpha)
        elif write == "careful":
            result = careful(adv, grad, images, eps, alpha)
        elif write == "careful out":
            result = torch.empty_like(adv)
            careful(adv, grad, images, eps, alpha, out=result)
        else:
            result = adv
            steps.in_place(steps.with_sizes(page, eps, alpha))(adv, grad, images)
        torch.testing.assert_close(result.double(), expected, rtol=0, atol=5e-7)

    def test_kept_bounds_are_those_of_ball_and_images(self) -> None:
        adv, grad, images = attack_inputs((5, 3, 8, 8), torch.Generator().manual_seed(1))
        expected = steps.PAGES["linf"](adv, grad, images, EPS, 0.01)
        bounds = steps.linf_bounds(images, EPS)
        result = steps.linf_within(adv, grad, bounds, 0.01, torch.empty_like(adv))
        assert result is adv
        torch.testing.assert_close(result, expected, rtol=0, atol=2e-7)

    @pytest.mark.parametrize("norm", NORMS)
    def test_some_samples_are_projected_and_some_are_not(self, norm: str) -> None:
        adv, grad, images = attack_inputs((9, 3, 8, 8), torch.Generator().manual_seed(1))
        eps, alpha = sizes(norm, 3 * 8 * 8)
        stepped = steps.PAGES[norm](adv, grad, images, eps, alpha)
        unbounded = steps.PAGES[norm](adv, grad, images, 1e9, alpha)
        is_projected = (stepped != unbounded).flatten(1).any(1)
        assert is_projected.any()
        if norm == "l2":
            assert not is_projected.all()


class TestInPlace:
    def test_it_walks_on_and_is_checked_from_the_start(self) -> None:
        work = small(LinfStep)("cpu")
        for _ in range(3):
            work.repetition(IN_PLACE)()
        assert not torch.equal(work.adv, work.start)
        walked = work.adv.clone()
        assert work.check(IN_PLACE).value_error < 1e-6
        assert not torch.equal(work.adv, walked)

    def test_a_step_that_is_too_long_is_refused(self) -> None:
        class TooLong(small(LinfStep)):  # type: ignore[misc]
            name = title = "too long"

            @contender("too long", "selkern")
            def too_long(self) -> Outcome:
                step = steps.PAGES["linf"]
                return Outcome(step(self.adv, self.grad, self.images, self.eps, 1.01 * self.alpha))

        with pytest.raises(Disagreement, match="'too long' differs from float64"):
            TooLong("cpu").check("too long")


class TestPGDAttack:
    def test_the_attack_raises_the_loss(self) -> None:
        work = small(PGDAttack)("cpu")
        loss = torch.nn.functional.cross_entropy(work.evaluated(work.images), work.labels)
        for label in (FUSED, PAGE):
            assert work.check(label).loss > loss.item()

    def test_what_the_attack_adds_is_told(self) -> None:
        results = measure.measure(small(PGDAttack), quick=True)
        for row in results["rows"]:
            assert row["added_to"] == (None if row["contender"] == PLAIN else PLAIN)

    @pytest.mark.parametrize("change", [-1, 1])
    def test_another_number_of_steps_is_refused(self, change: int) -> None:
        work = small(PGDAttack, step_count=10)("cpu")
        work.check(PAGE)
        work.step_count += change
        with pytest.raises(Disagreement, match="'eager page' differs from float64"):
            work.check(PAGE)

    def test_the_model_keeps_its_mode(self) -> None:
        work = small(PGDAttack)("cpu")
        before = {name: x.clone() for name, x in work.model.state_dict().items()}
        for label, entry in work.contenders.items():
            if label != FOOLBOX or HAS_FOOLBOX:
                getattr(work, entry.method)()
                assert all(module.training for module in work.model.modules())
        assert all(torch.equal(x, before[name]) for name, x in work.model.state_dict().items())


@pytest.mark.parametrize("work", [*LINF_STEPS, *L2_STEPS], ids=lambda work: work.name)
class TestStreaming:
    def make(self, work: type[Work]) -> Work:
        return type(work.__name__, (work,), {"batch": 3, "shape": (3, 8, 8)})("cpu")

    def test_bytes(self, work: type[Work]) -> None:
        images = 3 * 3 * 8 * 8 * work.dtype.itemsize
        assert self.make(work).moved_bytes() == (4 if work.norm == "linf" else 7) * images

    def test_inputs_have_dtype_and_layout(self, work: type[Work]) -> None:
        for tensor in self.make(work).inputs[0]:
            assert tensor.dtype == work.dtype
            is_last = tensor.is_contiguous(memory_format=torch.channels_last)
            assert is_last == work.channels_last

    def test_a_step_of_no_length_is_refused(self, work: type[Work]) -> None:
        instance = self.make(work)
        for label in instance.contenders:
            if label != COPY and "compiled" not in label:
                instance.check(label)
        instance.fused_function = lambda: lambda adv, grad, images: adv.clone()
        with pytest.raises(Disagreement, match="'selkern' differs from float64"):
            instance.check("selkern")


def test_tables_show_the_attacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    works = [small(work) for work in ATTACKS]
    results = {**measure.measure_all([]), "works": [measure.measure(work) for work in works]}
    table = readme_table(results)
    for work in works:
        assert (work.title in table) == (work.name in HEADLINES)
    assert CUDA_WORKS["pgd_step_linf_3x224x224_float32_contiguous"].title in gpu_table(results)
