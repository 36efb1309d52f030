"""Steps of attacks: values, exact balls and bounds, memory formats, what is not finite."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

import pytest
import torch
from cases import DTYPES, MAPS, ROWS, case_name, normal
from step_cases import NORMS, STEPS, batch, images_like
from torch import Tensor

from selkern import reference
from selkern.attacks import pgd_step

INPUTS = ROWS + MAPS

# Half of what a result is rounded by, for values below one, and what is computed in.
TOLERANCE = {
    torch.float16: 2.0**-11,
    torch.bfloat16: 2.0**-8,
    torch.float32: 2e-6,
    torch.float64: 1e-12,
}


class TestValues:
    @pytest.mark.parametrize("norm", NORMS)
    @pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
    @pytest.mark.parametrize("case", INPUTS, ids=case_name)
    def test_are_those_of_the_definition_in_float64(
        self, case: tuple, dtype: torch.dtype, norm: str, device: torch.device
    ) -> None:
        tensors = [x.to(device) for x in images_like(case[0], dtype, case[1])]
        expected = reference.attacks.pgd_step(*(x.double() for x in tensors), **STEPS[norm])
        actual = pgd_step(*tensors, **STEPS[norm])
        assert actual.dtype == dtype
        assert_near(actual, expected)

    @pytest.mark.parametrize("norm", NORMS)
    @pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
    @pytest.mark.parametrize("case", INPUTS, ids=case_name)
    def test_are_those_of_the_definition_on_every_instruction_set(
        self, case: tuple, dtype: torch.dtype, norm: str, capability: str
    ) -> None:
        tensors = images_like(case[0], dtype, case[1])
        expected = reference.attacks.pgd_step(*(x.double() for x in tensors), **STEPS[norm])
        assert_near(pgd_step(*tensors, **STEPS[norm]), expected)

    @pytest.mark.parametrize("norm", NORMS)
    def test_are_worked_out_in_the_precision_of_the_reference(self, norm: str) -> None:
        tensors = batch(0, torch.float32)
        assert_near(
            reference.attacks.pgd_step(*tensors, **STEPS[norm]), pgd_step(*tensors, **STEPS[norm])
        )

    def test_by_hand(self, anywhere: torch.device) -> None:
        def tensor(*values: float) -> Tensor:
            return torch.tensor([values], device=anywhere)

        images, gradient = tensor(0.5, 0.5, 0.95, 0.5), tensor(3.0, -4.0, 1.0, 0.0)
        adv = tensor(0.5, 0.375, 0.95, 0.5)
        stepped = pgd_step(adv, gradient, images, eps=0.25, alpha=0.125)
        assert_near(stepped, tensor(0.625, 0.25, 1.0, 0.5).double())
        stepped = pgd_step(adv, gradient, images, eps=0.25, alpha=-0.125)
        assert_near(stepped, tensor(0.375, 0.5, 0.825, 0.5).double())
        gradient = tensor(3.0, 0.0, 0.0, 4.0)
        stepped = pgd_step(images, gradient, images, eps=0.1, alpha=0.5, norm="l2")
        assert_near(stepped, tensor(0.56, 0.5, 0.95, 0.58).double())

    @pytest.mark.parametrize("elements", [40_000, 3])
    def test_l2_sums_of_a_sample_are_the_same_alone_and_in_a_batch(
        self, elements: int, anywhere: torch.device
    ) -> None:
        generator = torch.Generator().manual_seed(elements)
        tensors = [torch.rand(5, elements, generator=generator).to(anywhere) for _ in range(3)]
        together = pgd_step(*tensors, **STEPS["l2"])
        alone = [
            pgd_step(*(x[i : i + 1].clone() for x in tensors), **STEPS["l2"]) for i in range(5)
        ]
        assert torch.equal(together, torch.cat(alone))

    @pytest.mark.parametrize("least", [0.5, 0.99999])
    def test_long_l2_sums_keep_their_digits(self, least: float, anywhere: torch.device) -> None:
        # Around zero, where a result is rounded by little.
        images = torch.zeros(1, 3_000_000)
        adv, gradient = images + 2.0**-10, torch.linspace(least, 1.0, 3_000_000)[None] / 3
        tensors = [x.to(anywhere) for x in (adv, gradient, images)]
        expected = reference.attacks.pgd_step(
            *(x.double() for x in tensors), eps=1.0, alpha=0.5, norm="l2"
        )
        actual = pgd_step(*tensors, eps=1.0, alpha=0.5, norm="l2")
        assert (actual - expected).norm() <= 2e-6 * expected.norm()

    @pytest.mark.parametrize("norm", NORMS)
    @pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 0, 3), (2, 3, 0)])
    def test_of_nothing_are_nothing(
        self, shape: tuple[int, ...], norm: str, anywhere: torch.device
    ) -> None:
        x = torch.empty(shape, device=anywhere)
        assert pgd_step(x, x, x, **STEPS[norm]).shape == shape
        assert pgd_step(x, x, x, **STEPS[norm], out=x) is x


class TestBallAndBounds:
    @pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
    @pytest.mark.parametrize("seed", range(6))
    def test_linf_is_never_left_by_a_rounding_error(
        self, seed: int, dtype: torch.dtype, anywhere: torch.device
    ) -> None:
        for eps in (8 / 255, 0.1, 1e-3, 2.0**-9, 1e-7, 0.0):
            adv, gradient, images = (x.to(anywhere) for x in batch(seed, dtype))
            for _ in range(3):
                adv = pgd_step(adv, gradient, images, eps=eps, alpha=0.04)
                assert largest_distance(adv, images) <= Fraction(eps)
                assert adv.min() >= 0
                assert adv.max() <= 1

    @pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
    @pytest.mark.parametrize("seed", range(6))
    def test_l2_is_never_left_by_a_rounding_error(
        self, seed: int, dtype: torch.dtype, anywhere: torch.device
    ) -> None:
        sizes = [(0.5, 0.3), (1e-2, 0.1), (0.3, 3.0), (2.0, 0.5), (0.05, 0.05), (1e-6, 1e-6)]
        for eps, alpha in [*sizes, (1e-20, 1.0), (0.0, 0.1)]:
            adv, gradient, images = (x.to(anywhere) for x in batch(seed, dtype))
            for _ in range(3):
                adv = pgd_step(adv, gradient, images, eps=eps, alpha=alpha, norm="l2")
                for moved, image in zip(adv, images, strict=True):
                    assert squared_distance(moved, image) <= Fraction(eps) ** 2
                assert adv.min() >= 0
                assert adv.max() <= 1

    @pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
    @pytest.mark.parametrize("far", [1.0, 13.0, 1000.0])
    def test_l2_is_not_left_where_a_step_comes_back_from_far(
        self, far: float, dtype: torch.dtype, anywhere: torch.device
    ) -> None:
        generator = torch.Generator().manual_seed(int(far))
        images = torch.rand(6, 500, dtype=torch.float64, generator=generator)
        away = torch.randn(6, 500, dtype=torch.float64, generator=generator)
        away *= far / away.norm(dim=1, keepdim=True)
        tensors = [x.to(anywhere, dtype) for x in (images + away, -away, images)]
        for eps in (2.0, 0.03, 5e-4):
            for alpha in (far, far + eps, far - 1.01 * eps):
                step = {"eps": eps, "alpha": alpha, "norm": "l2", "bounds": (-1e4, 1e4)}
                for moved, image in zip(pgd_step(*tensors, **step), tensors[2], strict=True):
                    assert squared_distance(moved, image) <= Fraction(eps) ** 2

    def test_l2_is_not_left_where_all_roundings_agree(self, anywhere: torch.device) -> None:
        far = 0.6860575675964355
        images = torch.zeros(1, 6144, device=anywhere)
        adv, gradient = images + far, images - 0.6497278809547424
        eps = 6144**0.5 * far * (1 + 1e-9)
        step = {"eps": eps, "alpha": 2.002 * eps, "norm": "l2", "bounds": (-9.0, 9.0)}
        moved = pgd_step(adv, gradient, images, **step)
        assert squared_distance(moved, images) <= Fraction(eps) ** 2

    @pytest.mark.parametrize("gradient", [1e-23, 1e-30, 1e-17])
    def test_a_gradient_whose_square_underflows_leads_nowhere(
        self, gradient: float, anywhere: torch.device
    ) -> None:
        images = torch.zeros(1, 4, device=anywhere)
        for eps in (0.0, 1e-9):
            step = {"eps": eps, "alpha": 1.0, "norm": "l2"}
            moved = pgd_step(images, torch.full_like(images, gradient), images, **step)
            assert squared_distance(moved, images) <= Fraction(eps) ** 2

    @pytest.mark.parametrize("norm", NORMS)
    @pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
    def test_bounds_between_two_floats_are_never_left(
        self, dtype: torch.dtype, norm: str, anywhere: torch.device
    ) -> None:
        images = torch.full((2, 8), 0.4, dtype=dtype, device=anywhere)
        gradient = normal((2, 8), dtype).to(anywhere)
        low, high = 0.1, 0.7
        step = {"eps": 3.0, "alpha": 5.0, "norm": norm, "bounds": (low, high)}
        values = [
            Fraction(value)
            for value in pgd_step(images, gradient, images, **step).flatten().tolist()
        ]
        assert Fraction(low) <= min(values)
        assert max(values) <= Fraction(high)
        unit = torch.finfo(dtype).eps
        assert min(values) <= Fraction(low) + Fraction(unit) / 8
        assert max(values) >= Fraction(high) - Fraction(unit)

    def test_bounds_without_a_number_between_them_are_refused(self, anywhere: torch.device) -> None:
        x = torch.full((1, 4), 0.1, dtype=torch.float16, device=anywhere)
        with pytest.raises(ValueError, match="no number of the dtype lies from low"):
            pgd_step(x, x, x, eps=0.1, alpha=0.1, bounds=(0.10001, 0.10002))

    def test_bounds_may_be_infinite(self, anywhere: torch.device) -> None:
        x = torch.tensor([[5.0, -3.0]], device=anywhere)
        bounds = (-math.inf, math.inf)
        stepped = pgd_step(x, x, x, eps=2.0, alpha=1.0, bounds=bounds)
        assert torch.equal(stepped.cpu(), torch.tensor([[6.0, -4.0]]))

    @pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
    def test_the_edge_of_the_ball_is_reached_but_for_one_rounding(
        self, dtype: torch.dtype, anywhere: torch.device
    ) -> None:
        _, gradient, images = (x.to(anywhere) for x in batch(1, dtype))
        eps = 0.1
        adv = pgd_step(images, gradient, images, eps=eps, alpha=1.0, bounds=(-9.0, 9.0))
        short = eps - (adv.double() - images.double()).abs()
        unit = torch.finfo(dtype).eps * adv.double().abs().clamp(min=eps)
        assert bool((short <= 1.2 * unit).all())

    @pytest.mark.parametrize("norm", NORMS)
    @pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
    def test_inside_the_ball_nothing_moves_without_a_gradient(
        self, dtype: torch.dtype, norm: str, anywhere: torch.device
    ) -> None:
        adv, gradient, images = (x.to(anywhere) for x in batch(2, dtype))
        step = STEPS[norm] | {"eps": 5.0}
        assert torch.equal(pgd_step(adv, 0 * gradient, images, **step), adv)
        assert torch.equal(pgd_step(adv, gradient, images, **step | {"alpha": 0.0}), adv)


class TestWhatIsNotFinite:
    @pytest.mark.parametrize("norm", NORMS)
    @pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
    def test_nan_in_the_gradient_counts_as_zero(
        self, dtype: torch.dtype, norm: str, anywhere: torch.device
    ) -> None:
        adv, gradient, images = (x.to(anywhere) for x in batch(3, dtype))
        with_nan, with_zero = gradient.clone(), gradient.clone()
        with_nan[:, :, ::2], with_zero[:, :, ::2] = torch.nan, 0.0
        expected = pgd_step(adv, with_zero, images, **STEPS[norm])
        assert torch.equal(pgd_step(adv, with_nan, images, **STEPS[norm]), expected)

    @pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
    def test_infinity_in_the_gradient_has_a_sign_but_no_direction(
        self, dtype: torch.dtype, anywhere: torch.device
    ) -> None:
        adv, gradient, images = (x.to(anywhere) for x in batch(3, dtype))
        infinite, zero = gradient.clone(), gradient.clone()
        infinite[0, 0, 0], zero[0, 0, 0] = -torch.inf, 0.0
        of_sign = pgd_step(adv, gradient.copysign(infinite), images, **STEPS["linf"])
        assert torch.equal(pgd_step(adv, infinite, images, **STEPS["linf"]), of_sign)
        of_zero = pgd_step(adv, zero, images, **STEPS["l2"])
        assert torch.equal(pgd_step(adv, infinite, images, **STEPS["l2"]), of_zero)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=case_name)
    def test_a_gradient_without_a_finite_norm_is_none(
        self, dtype: torch.dtype, anywhere: torch.device
    ) -> None:
        adv, gradient, images = (x.to(anywhere, torch.float64) for x in batch(3, dtype))
        stepped = pgd_step(adv, gradient * 1e300, images, **STEPS["l2"])
        assert torch.equal(stepped, pgd_step(adv, 0 * gradient, images, **STEPS["l2"]))

    @pytest.mark.parametrize("elements", [4, 40_000])
    def test_what_is_finite_leads_to_nothing_else(
        self, elements: int, anywhere: torch.device
    ) -> None:
        zeros = torch.zeros(1, elements, device=anywhere)
        step = {"eps": 1.0, "alpha": 0.1, "norm": "l2", "bounds": (-1e30, 1e30)}
        for adv, gradient in [(1e20, 1.0), (0.0, 1e30), (1e20, -1e30), (0.0, 1e-15)]:
            for alpha in (0.1, 1e30):
                moved = pgd_step(zeros + adv, zeros + gradient, zeros, **step | {"alpha": alpha})
                assert squared_distance(moved[:, :4], zeros[:, :4]) <= 1

    @pytest.mark.parametrize("alpha", [1e17, -1e39, 1e300])
    def test_a_step_of_any_length_ends_at_the_edge(
        self, alpha: float, anywhere: torch.device
    ) -> None:
        gradient = torch.tensor([[3.0, 0.0, 4.0, 0.0]], device=anywhere)
        images = torch.full((1, 4), 0.5, device=anywhere)
        sign = 1 if alpha > 0 else -1
        for norm, moved in [("linf", (0.25, 0.0, 0.25, 0.0)), ("l2", (0.15, 0.0, 0.2, 0.0))]:
            stepped = pgd_step(images, gradient, images, eps=0.25, alpha=alpha, norm=norm)
            expected = 0.5 + sign * torch.tensor([moved], dtype=torch.float64)
            assert_near(stepped.cpu(), expected)

    @pytest.mark.parametrize("which", [0, 2], ids=["adv", "images"])
    def test_nan_in_an_image_stays_in_its_pixel_or_sample(
        self, which: int, anywhere: torch.device
    ) -> None:
        tensors = [x.to(anywhere) for x in batch(4, torch.float32)]
        expected = {norm: pgd_step(*tensors, **STEPS[norm]) for norm in NORMS}
        tensors[which] = tensors[which].clone()
        tensors[which][1, 2, 3, 4] = torch.nan
        of_pixel = pgd_step(*tensors, **STEPS["linf"])
        assert of_pixel[1, 2, 3, 4].isnan()
        of_pixel[1, 2, 3, 4] = expected["linf"][1, 2, 3, 4]
        assert torch.equal(of_pixel, expected["linf"])
        of_sample = pgd_step(*tensors, **STEPS["l2"])
        assert of_sample[1].isnan().all()
        of_sample[1] = expected["l2"][1]
        assert torch.equal(of_sample, expected["l2"])

    @pytest.mark.parametrize("norm", NORMS)
    def test_an_image_that_is_out_of_bounds_comes_back(
        self, norm: str, anywhere: torch.device
    ) -> None:
        x = torch.tensor([[3.0, -2.0, 0.5]], device=anywhere)
        stepped = pgd_step(x, torch.ones_like(x), x, eps=0.1, alpha=0.05, norm=norm)
        assert torch.equal(stepped[0, :2].cpu(), torch.tensor([1.0, 0.0]))


def assert_near(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    if expected.numel():
        error = (actual.double() - expected.double()).abs().max()
        assert error <= TOLERANCE[actual.dtype]


def fractions_of(x: Tensor) -> Iterator[Fraction]:
    return map(Fraction, x.flatten().tolist())


def largest_distance(a: Tensor, b: Tensor) -> Fraction:
    return max(abs(x - y) for x, y in zip(fractions_of(a), fractions_of(b), strict=True))


def squared_distance(a: Tensor, b: Tensor) -> Fraction:
    return sum((x - y) ** 2 for x, y in zip(fractions_of(a), fractions_of(b), strict=True))
