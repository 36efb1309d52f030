"""PGD: random starts, convex losses, and gradients that give no direction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from attack_cases import (
    NORMS,
    PIXELS,
    STEPS,
    assert_within,
    classes,
    cross_entropies,
    euclidean,
    images,
    linear_model,
    smooth_model,
    steps_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from selkern.attacks import FGSM, PGD

# ------------------------------------------------------------------------------- random starts


@NORMS
def test_the_seed_decides_on_the_start(norm: str) -> None:
    model, x, labels = smooth_model(), images(), classes()
    generator = torch.Generator()
    attack = PGD(model, **steps_of(norm), generator=generator)
    generator.manual_seed(3)
    first, second = attack(x, labels), attack(x, labels)
    generator.manual_seed(3)
    assert torch.equal(attack(x, labels), first)
    assert torch.equal(attack(x, labels), second)
    assert not torch.equal(first, second)
    generator.manual_seed(4)
    assert not torch.equal(attack(x, labels), first)


@NORMS
def test_an_own_generator_leaves_that_of_torch_alone(norm: str) -> None:
    model, x, labels = smooth_model(), images(), classes()
    before = torch.get_rng_state()
    PGD(model, norm=norm, generator=torch.Generator())(x, labels)
    PGD(model, norm=norm, random_start=False)(x, labels)
    FGSM(model)(x, labels)
    assert torch.equal(torch.get_rng_state(), before)


def test_without_one_the_generator_of_torch_decides() -> None:
    model, x, labels = smooth_model(), images(), classes()
    attack = PGD(model, **STEPS)
    torch.manual_seed(3)
    first = attack(x, labels)
    assert not torch.equal(attack(x, labels), first)
    torch.manual_seed(3)
    assert torch.equal(attack(x, labels), first)


def starts(x: Tensor, eps: float, norm: str, seed: int = 3) -> Tensor:
    """Where attacks begin; no step is made, and no bounds cut anything off."""
    generator = torch.Generator().manual_seed(seed)
    bounds = (-torch.inf, torch.inf)
    attack = PGD(smooth_model(x.dtype), eps, steps=0, norm=norm, bounds=bounds, generator=generator)
    return attack(x, classes(len(x)))


def test_linf_starts_fill_the_ball_evenly() -> None:
    x = images(400)
    u = (starts(x, 0.25, "linf") - x) / 0.25
    assert u.abs().max() <= 1 + 1e-12
    for power in range(1, 7):
        values = u**power
        expected = 0.0 if power % 2 else 1 / (power + 1)
        deviation = (values.mean() - expected) / (values.std() / u.numel() ** 0.5)
        assert deviation.abs() < 4
    assert u.mean(0).abs().max() < 5 / (3 * 400) ** 0.5


def test_l2_starts_fill_the_ball_evenly() -> None:
    x = images(2000)
    offsets = (starts(x, 2.5, "l2") - x).flatten(1)
    radii = euclidean(offsets)
    # The share of a ball within r is (r / eps)^n.
    shares = ((radii / 2.5) ** PIXELS).sort().values
    assert shares[-1] <= 1 + 1e-9
    steps = (torch.arange(2000) + 0.5) / 2000
    assert (shares - steps).abs().max() < 1.63 / 2000**0.5
    directions = offsets / radii[:, None]
    assert directions.mean(0).abs().max() < 4.5 / (2000 * PIXELS) ** 0.5
    spread = directions.T @ directions / 2000 * PIXELS
    assert (spread - torch.eye(PIXELS)).abs().max() < 6 / 2000**0.5


@NORMS
def test_a_start_does_not_depend_on_the_memory_format(norm: str) -> None:
    x = images()
    last = starts(x.contiguous(memory_format=torch.channels_last), 0.2, norm)
    torch.testing.assert_close(last, starts(x, 0.2, norm), rtol=0, atol=1e-15)
    assert last.is_contiguous(memory_format=torch.channels_last)


# ------------------------------------------------------------------------------- convex losses

settings.register_profile("selkern", deadline=None, derandomize=True, database=None)


@st.composite
def linear_problems(draw: st.DrawFn, most_classes: int) -> tuple[Any, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    pixels, samples = draw(st.integers(1, 12)), draw(st.integers(1, 5))
    num_classes = draw(st.integers(2, most_classes))
    scale = draw(st.sampled_from([0.01, 1.0, 10.0]))
    draws: dict[str, Any] = {"dtype": torch.float64, "generator": generator}
    model = linear_model(scale * torch.randn(num_classes, pixels, **draws))
    x = torch.rand(samples, pixels, **draws)
    return model, x, torch.randint(num_classes, (samples,), generator=generator)


lengths = st.floats(1e-3, 2.0)
widths = st.floats(1e-3, 1.0)


def assert_never_lower(
    problem: tuple[Any, Tensor, Tensor], steps: int, random_start: bool, **options: Any
) -> None:
    model, x, labels = problem
    before = None
    for count in range(steps + 1):
        generator = torch.Generator().manual_seed(3)
        attack = PGD(model, steps=count, random_start=random_start, generator=generator, **options)
        losses = cross_entropies(model, attack(x, labels), labels)
        if before is not None:
            assert (losses >= before - 1e-12 * before.clamp(min=1.0)).all()
        before = losses


@settings(settings.get_profile("selkern"), max_examples=60)
@given(linear_problems(5), widths, lengths, st.booleans())
def test_linf_steps_never_lower_a_convex_loss(
    problem: tuple[Any, Tensor, Tensor], eps: float, alpha: float, random_start: bool
) -> None:
    assert_never_lower(problem, 4, random_start, eps=eps, alpha=alpha)


@settings(settings.get_profile("selkern"), max_examples=60)
@given(linear_problems(5), lengths, lengths, st.booleans())
def test_l2_steps_never_lower_a_convex_loss(
    problem: tuple[Any, Tensor, Tensor], eps: float, alpha: float, random_start: bool
) -> None:
    # Projecting onto the ball and then cutting off is not projecting onto what both leave.
    unbounded = {"norm": "l2", "bounds": (-torch.inf, torch.inf)}
    assert_never_lower(problem, 4, random_start, eps=eps, alpha=alpha, **unbounded)


@settings(settings.get_profile("selkern"), max_examples=60)
@given(linear_problems(5), lengths, lengths, st.integers(1, 6))
def test_an_l2_attack_within_bounds_ends_no_lower_than_it_began(
    problem: tuple[Any, Tensor, Tensor], eps: float, alpha: float, steps: int
) -> None:
    model, x, labels = problem
    adv = PGD(model, eps, alpha, steps, random_start=False, norm="l2")(x, labels)
    before, after = (cross_entropies(model, a, labels) for a in (x, adv))
    assert (after >= before - 1e-12 * before.clamp(min=1.0)).all()


# ------------------------------------------------------------------------------- no direction

WITHOUT_DIRECTION: dict[str, Callable[[Tensor], Tensor]] = {
    "zero": lambda x: x * 0.0,
    "nan": lambda x: x * torch.nan,
    "infinite_slope": lambda x: (x - x.detach()).sqrt(),
}


@NORMS
@pytest.mark.parametrize("random_start", [False, True])
@pytest.mark.parametrize("function", WITHOUT_DIRECTION.values(), ids=WITHOUT_DIRECTION)
def test_without_a_gradient_images_stay_inside(
    function: Callable[[Tensor], Tensor], random_start: bool, norm: str
) -> None:
    inner, x, labels = smooth_model(torch.float32), images(dtype=torch.float32), classes()
    attack = PGD(lambda x: inner(function(x)), **steps_of(norm), random_start=random_start)
    adv = attack(x, labels)
    assert adv.isfinite().all()
    assert_within(adv, x, attack.eps, norm)


@NORMS
@pytest.mark.parametrize("value", [0.0, torch.nan])
def test_gradients_of_zero_or_nan_move_nothing(value: float, norm: str) -> None:
    inner, x, labels = smooth_model(torch.float32), images(dtype=torch.float32), classes()
    options = steps_of(norm)

    def attack(steps: int, random_start: bool) -> Tensor:
        generator = torch.Generator().manual_seed(3)
        settings = options | {"steps": steps, "random_start": random_start}
        return PGD(lambda x: value * inner(x), **settings, generator=generator)(x, labels)

    assert torch.equal(attack(6, random_start=False), x)
    torch.testing.assert_close(attack(6, True), attack(0, True), rtol=0, atol=2e-7)
    if norm == "linf":
        assert torch.equal(FGSM(lambda x: value * inner(x), 0.1)(x, labels), x)


@NORMS
def test_a_sample_without_a_gradient_does_not_hold_the_others_up(norm: str) -> None:
    inner, x, labels = smooth_model(), images(), classes()
    weight = torch.ones(len(x), 1, dtype=torch.float64)
    weight[2] = torch.nan
    attack = PGD(lambda x: inner(x) * weight, **steps_of(norm), random_start=False)
    adv = attack(x, labels)
    expected = PGD(inner, **steps_of(norm), random_start=False)(x, labels)
    others = torch.arange(len(x)) != 2
    assert torch.equal(adv[2], x[2])
    assert torch.equal(adv[others], expected[others])
