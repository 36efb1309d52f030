"""FGSM and PGD: where they go, where they stop, and what they return."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from attack_cases import (
    NORMS,
    NUM_CLASSES,
    STEPS,
    Counting,
    assert_within,
    classes,
    cross_entropies,
    images,
    smooth_model,
    steps_of,
)
from torch import Tensor
from torch.nn import functional as F

from selkern import _checks
from selkern.attacks import FGSM, PGD
from selkern.reference import attacks as reference


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """How far the largest other logit is above that of the label, summed."""
    own = F.one_hot(labels, NUM_CLASSES).bool()
    return (logits.masked_fill(own, -torch.inf).amax(1) - logits[own]).sum()


# ------------------------------------------------------------------------------- by definition

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "random_start": {"random_start": True},
    "targeted": {"targeted": True},
    "early_stop": {"early_stop": True},
    "targeted_early_stop": {"targeted": True, "early_stop": True, "random_start": True},
    "loss": {"loss": margin},
    "loss_early_stop": {"loss": margin, "early_stop": True},
    "wide_bounds": {"bounds": (-1.0, 2.0), "random_start": True},
    "unbounded": {"bounds": (-torch.inf, torch.inf), "random_start": True},
    "half_bounded": {"bounds": (0.0, torch.inf)},
    "steps_beyond_the_ball": {"alpha": 3.0},
    "no_steps": {"steps": 0, "random_start": True},
    "no_radius": {"eps": 0.0, "random_start": True},
    "no_length": {"alpha": 0.0},
}


@NORMS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_pgd_follows_its_definition(options: dict[str, Any], dtype: torch.dtype, norm: str) -> None:
    model, x, labels = smooth_model(dtype), images(dtype=dtype), classes()
    options = {"random_start": False} | steps_of(norm) | options
    adv, expected = (
        kind(model, **options, generator=torch.Generator().manual_seed(3))(x, labels)
        for kind in (PGD, reference.PGD)
    )
    tolerance = 1e-12 if dtype == torch.float64 else 2e-6
    torch.testing.assert_close(adv, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    "options",
    [{}, {"targeted": True}, {"bounds": (-1.0, 2.0)}, {"loss": margin}],
    ids=["plain", "targeted", "bounds", "loss"],
)
def test_fgsm_follows_its_definition(options: dict[str, Any]) -> None:
    model, x, labels = smooth_model(), images(), classes()
    adv = FGSM(model, 0.1, **options)(x, labels)
    expected = reference.FGSM(model, 0.1, **options)(x, labels)
    torch.testing.assert_close(adv, expected, rtol=0, atol=1e-12)
    one_step = PGD(model, 0.1, 0.1, 1, random_start=False, **options)(x, labels)
    assert torch.equal(adv, one_step)


def test_fgsm_adds_the_sign_of_the_gradient() -> None:
    model, labels = smooth_model(), classes()
    x = images().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), labels), x)
    expected = (x + 0.1 * gradient.sign()).clamp(0, 1).detach()
    adv = FGSM(model, 0.1)(x, labels)
    torch.testing.assert_close(adv, expected, rtol=0, atol=1e-15)


@NORMS
def test_samples_are_attacked_each_by_itself(norm: str) -> None:
    model, x, labels = smooth_model(), images(), classes()
    attack = PGD(model, **steps_of(norm), random_start=False)
    apart = [attack(x[i : i + 1], labels[i : i + 1]) for i in range(len(x))]
    torch.testing.assert_close(attack(x, labels), torch.cat(apart), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32], ids=str)
def test_labels_may_be_of_either_kind(dtype: torch.dtype) -> None:
    model, x, labels = smooth_model(), images(), classes()
    attack = PGD(model, **STEPS, random_start=False, early_stop=True)
    assert torch.equal(attack(x, labels.to(dtype)), attack(x, labels))


def test_labels_of_a_loss_may_be_no_classes() -> None:
    model, x = smooth_model(), images()
    weights = torch.randn(len(x), NUM_CLASSES, dtype=torch.float64)
    adv = PGD(model, **STEPS, random_start=False, loss=lambda y, w: (y * w).sum())(x, weights)
    assert (model(adv) * weights).sum() > (model(x) * weights).sum() + 1.0


# ------------------------------------------------------------------------------- the result


@NORMS
@pytest.mark.parametrize("random_start", [False, True])
@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str
)
def test_no_rounding_leads_out_of_ball_or_bounds(
    dtype: torch.dtype, random_start: bool, norm: str
) -> None:
    model, labels = smooth_model(dtype), classes(32)
    for eps, bounds in [(8 / 255, (0.0, 1.0)), (0.3, (-1.0, 2.0)), (1e-3, (0.0, 1.0))]:
        x = images(32, dtype, bounds)
        attack = PGD(model, eps, eps / 3, 5, random_start=random_start, norm=norm, bounds=bounds)
        adv = attack(x, labels)
        assert not torch.equal(adv, x)
        assert_within(adv, x, eps, norm, bounds)


@NORMS
@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("random_start", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_the_result_looks_like_the_images(
    dtype: torch.dtype, random_start: bool, steps: int, norm: str
) -> None:
    model = smooth_model(dtype)
    attack = PGD(model, 0.1, 0.05, steps, random_start=random_start, norm=norm)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x = images(dtype=dtype).contiguous(memory_format=memory_format)
        adv = attack(x.clone().requires_grad_(), classes())
        assert (adv.dtype, adv.shape, adv.stride()) == (x.dtype, x.shape, x.stride())
        assert not adv.requires_grad
        assert adv.grad_fn is None


@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("random_start", [False, True])
def test_the_images_are_neither_changed_nor_returned(random_start: bool, steps: int) -> None:
    model, labels = smooth_model(), classes()
    x = images().requires_grad_()
    before = x.detach().clone()
    adv = PGD(model, 0.1, 0.05, steps, random_start=random_start)(x, labels)
    assert adv.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()
    adv.zero_()
    assert torch.equal(x, before)
    assert x.grad is None
    assert torch.equal(labels, classes())


@pytest.mark.parametrize("early_stop", [False, True])
@NORMS
def test_an_empty_batch_stays_empty(norm: str, early_stop: bool) -> None:
    x = images(0)
    adv = PGD(smooth_model(), norm=norm, early_stop=early_stop)(x, classes(0))
    assert adv.shape == x.shape


def test_images_may_require_a_gradient() -> None:
    model, labels = smooth_model(), classes()
    attack = PGD(model, **STEPS, random_start=False)
    torch.set_warn_always(True)
    try:
        adv = attack(images().requires_grad_(), labels)
    finally:
        torch.set_warn_always(False)
    assert torch.equal(adv, attack(images(), labels))


def test_rounded_images_may_lie_an_ulp_outside_the_bounds() -> None:
    x = images(dtype=torch.float32).clamp(0.1, 0.7)
    x[0, 0, 0, 0] = x.max().nextafter(torch.tensor(1.0))
    assert float(x.max()) > 0.7
    adv = PGD(smooth_model(torch.float32), 0.1, bounds=(0.1, 0.7))(x, classes())
    assert float(adv.max()) <= 0.7
    assert_within(adv[1:], x[1:], 0.1, bounds=(0.1, 0.7))


# ------------------------------------------------------------------------------- aims


@NORMS
def test_an_attack_raises_the_loss(norm: str) -> None:
    model, x, labels = smooth_model(), images(), classes()
    adv = PGD(model, **steps_of(norm))(x, labels)
    assert (cross_entropies(model, adv, labels) > cross_entropies(model, x, labels) + 0.1).all()


@NORMS
def test_a_targeted_attack_raises_the_probability_of_the_target(norm: str) -> None:
    model, x, targets = smooth_model(), images(), classes(seed=5)
    adv = PGD(model, **steps_of(norm), targeted=True)(x, targets)
    before, after = (model(a).softmax(1)[torch.arange(len(x)), targets] for a in (x, adv))
    assert (after > before).all()
    assert (model(adv).argmax(1) == targets).sum() > (model(x).argmax(1) == targets).sum()


def walk(
    model: Callable[[Tensor], Tensor], x: Tensor, label: Tensor, **options: Any
) -> list[Tensor]:
    """Every point of the way of one sample, up to the first that fools the model."""
    targeted = options.get("targeted", False)
    points = [x]
    for steps in range(1, options.pop("steps") + 1):
        if bool(((model(points[-1]).argmax(1) == label) == targeted).all()):
            break
        points.append(reference.PGD(model, **options, steps=steps, random_start=False)(x, label))
    return points


@NORMS
@pytest.mark.parametrize("targeted", [False, True])
def test_early_stop_leaves_a_sample_where_it_fools_the_model(targeted: bool, norm: str) -> None:
    model, x = smooth_model(), images(24)
    labels = classes(24) if targeted else model(x).argmax(1)
    options = steps_of(norm) | {"targeted": targeted, "alpha": 0.02 if norm == "linf" else 0.1}
    ways = [walk(model, x[i : i + 1], labels[i : i + 1], **options) for i in range(24)]
    assert len({len(way) for way in ways}) > 2
    adv = PGD(model, **options, random_start=False, early_stop=True)(x, labels)
    expected = torch.cat([way[-1] for way in ways])
    torch.testing.assert_close(adv, expected, rtol=0, atol=1e-12)
    on_to_the_end = PGD(model, **options, random_start=False)(x, labels)
    moved = (on_to_the_end - adv).flatten(1).abs().amax(1) > 1e-3
    assert moved.tolist() == [len(way) <= options["steps"] for way in ways]


@NORMS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("steps", [0, 2, 4])
def test_a_stopped_sample_keeps_its_bits(steps: int, dtype: torch.dtype, norm: str) -> None:
    model, x, labels = smooth_model(dtype), images(24, dtype), classes(24)
    labels[12:] = model(x[12:]).argmax(1)
    alpha = 0.01 if norm == "linf" else 0.05
    options = steps_of(norm) | {"alpha": alpha, "random_start": False, "early_stop": True}
    before, after = (
        PGD(model, **options | {"steps": count})(x, labels) for count in (steps, steps + 6)
    )
    stopped = model(before).argmax(1) != labels
    assert 0 < stopped.sum() < 24
    assert torch.equal(after[stopped], before[stopped])
    assert not (after[~stopped] == before[~stopped]).flatten(1).all(1).any()


@NORMS
def test_the_model_rests_once_every_sample_has_stopped(norm: str) -> None:
    model, x = smooth_model(), images()
    labels = model(x).argmax(1)
    options = steps_of(norm) | {"steps": 40, "random_start": False}
    longest = max(
        len(walk(model, x[i : i + 1], labels[i : i + 1], **steps_of(norm))) for i in range(len(x))
    )
    assert longest <= STEPS["steps"]
    counting = Counting(model)
    adv = PGD(counting, **options, early_stop=True)(x, labels)
    assert counting.calls == longest
    assert (model(adv).argmax(1) != labels).all()


def test_images_that_fool_the_model_are_returned_as_they_are() -> None:
    model, x = smooth_model(), images()
    labels = (model(x).argmax(1) + 1) % NUM_CLASSES
    counting = Counting(model)
    adv = PGD(counting, **STEPS, random_start=False, early_stop=True)(x, labels)
    assert counting.calls == 1
    assert torch.equal(adv, x)
    assert adv.data_ptr() != x.data_ptr()


# -------------------------------------------------------------------- what cannot be looked at


@pytest.fixture
def unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let attacks look at no value, as on CUDA."""
    monkeypatch.setattr("selkern._checks.may_look_at", lambda x: False)


@NORMS
@pytest.mark.parametrize("early_stop", [False, True])
def test_a_sample_without_a_class_makes_no_step(norm: str, early_stop: bool, unseen: None) -> None:
    model, x, labels = smooth_model(), images(), classes()
    attack = PGD(model, **steps_of(norm), random_start=False, early_stop=early_stop)
    expected = attack(x, labels)
    for label in (-100, NUM_CLASSES, -1, 2**40):
        labels[3], expected[3] = label, x[3]
        torch.testing.assert_close(attack(x, labels), expected, atol=1e-12, rtol=0)


def test_the_label_minus_100_is_none_where_labels_are_seen() -> None:
    model, x, labels = smooth_model(), images(), classes()
    labels[3] = -100
    adv = FGSM(model, 0.1)(x, labels)
    assert torch.equal(adv[3], x[3])
    assert not torch.equal(adv[2], x[2])


def test_an_early_stop_that_is_not_seen_moves_nothing_either(unseen: None) -> None:
    calls = []

    def model(x: Tensor) -> Tensor:
        calls.append(len(x))
        return smooth(x)

    smooth, x = smooth_model(), images()
    wrong = (smooth(x).argmax(1) + 1) % NUM_CLASSES
    adv = PGD(model, **STEPS, random_start=False, early_stop=True)(x, wrong)
    assert torch.equal(adv, x)
    assert len(calls) == STEPS["steps"]


def test_values_on_cuda_are_looked_at_only_where_waiting_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on_cuda, on_cpu = SimpleNamespace(is_cuda=True), SimpleNamespace(is_cuda=False)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.delenv("SELKERN_CHECK", raising=False)
    assert _checks.may_look_at(on_cpu)
    assert not _checks.may_look_at(on_cuda)
    monkeypatch.setenv("SELKERN_CHECK", "1")
    assert _checks.may_look_at(on_cuda)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert not _checks.may_look_at(on_cuda)


def test_an_attack_shows_its_settings() -> None:
    shown = repr(PGD(smooth_model(), eps=0.1, alpha=0.02, steps=3, norm="l2"))
    assert shown.startswith("PGD(eps=0.1, alpha=0.02, steps=3, random_start=True, norm='l2'")
    assert repr(FGSM(smooth_model(), eps=0.1)).startswith("FGSM(eps=0.1")


def test_the_loss_is_summed_over_the_samples() -> None:
    logits, labels = smooth_model()(images()).detach(), classes()
    expected = cross_entropies(smooth_model(), images(), labels).sum()
    torch.testing.assert_close(reference.summed_cross_entropy(logits, labels), expected)
