"""The measures of whole data sets against NumPy, and against data whose answer is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy_analysis import (
    numpy_components,
    numpy_cvpca,
    numpy_effective_rank,
    numpy_fit,
    numpy_participation_ratio,
    numpy_spectrum,
    power_law,
    random,
    swaps_of,
    with_spectrum,
)

from selkern import analysis

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
TOLERANCE = {torch.float64: 1e-12}
SHAPES = ((60, 20), (20, 60), (30, 30), (2, 7), (50, 1), (3, 25, 12), (2, 3, 9, 31), (0, 5, 4))


def tolerance(dtype: torch.dtype) -> float:
    return TOLERANCE.get(dtype, 2e-6)


class TestParticipationRatio:
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_equals_numpy(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        x = torch.tensor(random(*shape), dtype=dtype)
        expected = numpy_participation_ratio(x.double().numpy())
        actual = analysis.participation_ratio(x)
        assert actual.shape == shape[:-2]
        np.testing.assert_allclose(actual, expected, rtol=tolerance(dtype))

    def test_counts_the_directions_that_vary_alike(self) -> None:
        x = with_spectrum(np.ones(7), samples=50, units=20)
        np.testing.assert_allclose(analysis.participation_ratio(x), 7)
        np.testing.assert_allclose(analysis.participation_ratio(1e15 * x + 3), 7)
        np.testing.assert_allclose(analysis.participation_ratio(1e-15 * x), 7)

    def test_a_far_mean_does_not_count(self) -> None:
        x = with_spectrum(np.ones(5), samples=40, units=5).astype(np.float32) + np.float32(1e4)
        expected = numpy_participation_ratio(x.astype(np.float64))
        np.testing.assert_allclose(analysis.participation_ratio(x), expected, rtol=2e-6)

    def test_is_zero_where_nothing_varies(self) -> None:
        x = torch.stack([torch.full((7, 3), 0.1), torch.zeros(7, 3), torch.randn(7, 3)])
        ratio = analysis.participation_ratio(x)
        assert (ratio == 0).tolist() == [True, True, False]

    def test_nan_stays_in_its_matrix(self) -> None:
        x = torch.randn(3, 8, 4)
        x[1, 2, 3] = torch.nan
        ratio = analysis.participation_ratio(x)
        assert ratio.isnan().tolist() == [False, True, False]


class TestEffectiveRank:
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("shape", [(9,), (4, 1), (2, 3, 100)], ids=str)
    def test_equals_numpy(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        spectrum = torch.tensor(random(*shape) ** 2, dtype=dtype)
        expected = numpy_effective_rank(spectrum.double().numpy())
        actual = analysis.effective_rank(spectrum)
        assert actual.shape == shape[:-1]
        np.testing.assert_allclose(actual, expected, rtol=tolerance(dtype))

    def test_counts_equal_variances_whatever_their_order_and_size(self) -> None:
        spectrum = torch.tensor([[0.0, 3.0, 0.0, 3.0, 3.0], [2e-30, 0.0, 0.0, 0.0, 0.0]])
        torch.testing.assert_close(analysis.effective_rank(spectrum), torch.tensor([3.0, 1.0]))

    def test_negative_rounding_counts_as_zero(self) -> None:
        spectrum = torch.tensor([2.0, 2.0, -1e-7])
        torch.testing.assert_close(analysis.effective_rank(spectrum), torch.tensor(2.0))

    def test_is_zero_without_variance_and_nan_with_nan(self) -> None:
        spectrum = torch.tensor([[0.0, 0.0], [torch.nan, 1.0], [1.0, 0.0]])
        expected = torch.tensor([0.0, torch.nan, 1.0])
        actual = analysis.effective_rank(spectrum)
        torch.testing.assert_close(actual, expected, equal_nan=True)


class TestComponentsForVariance:
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("fraction", [0.01, 0.5, 0.9, 0.95, 1])
    def test_equals_numpy(self, fraction: float, dtype: torch.dtype) -> None:
        spectrum = torch.tensor(np.sort(random(2, 3, 40) ** 2)[..., ::-1].copy(), dtype=dtype)
        rounding = 1e-15 if dtype == torch.float64 else 1e-7
        actual = analysis.components_for_variance(spectrum, fraction)
        assert actual.dtype == torch.int64
        expected = numpy_components(spectrum.double().numpy(), fraction - rounding)
        np.testing.assert_array_equal(actual, expected)

    def test_a_sum_that_reaches_the_fraction_is_enough(self) -> None:
        spectrum = torch.tensor([0.8, 0.15, 0.05], dtype=torch.float64)
        for dtype in (torch.float32, torch.float64):
            of_dtype = spectrum.to(dtype)
            for fraction, components in ((0.8, 1), (0.801, 2), (0.95, 2), (0.951, 3), (1.0, 3)):
                assert analysis.components_for_variance(of_dtype, fraction) == components

    def test_without_variance_and_not_finite(self) -> None:
        spectrum = torch.tensor([[0.0, 0.0], [torch.nan, 1.0], [torch.inf, 1.0], [1.0, 1.0]])
        assert analysis.components_for_variance(spectrum, 0.6).tolist() == [0, -1, -1, 2]


class TestFitPowerLaw:
    @pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 1.04, 2.5])
    def test_finds_the_exponent_of_a_power_law(self, exponent: float) -> None:
        fit = analysis.fit_power_law(3 * power_law(exponent, 800))
        np.testing.assert_allclose(fit.exponent, exponent, atol=1e-12)
        np.testing.assert_allclose(fit.intercept, np.log(3), atol=1e-12)
        assert exponent == 0 or fit.r2 == pytest.approx(1)

    def test_finds_the_exponent_of_data(self) -> None:
        data = with_spectrum(power_law(1.3, 60), samples=200, units=60)
        fit = analysis.fit_power_law(numpy_spectrum(data))
        np.testing.assert_allclose(fit.exponent, 1.3, atol=1e-10)

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize(("first", "last"), [(11, 500), (1, 30), (12, 50), (38, 39)])
    def test_equals_numpy(self, first: int, last: int, dtype: torch.dtype) -> None:
        spectra = torch.tensor(random(2, 2, 40) ** 2, dtype=dtype)
        fit = analysis.fit_power_law(spectra, first, last)
        expected = [
            [numpy_fit(spectrum.double().numpy(), first, last) for spectrum in row]
            for row in spectra
        ]
        actual = np.stack([fit.exponent, fit.intercept, fit.r2], -1)
        np.testing.assert_allclose(actual, expected, rtol=tolerance(dtype), atol=tolerance(dtype))

    def test_tells_the_ranks_it_used(self) -> None:
        fit = analysis.fit_power_law(torch.ones(40), first=5)
        assert (fit.first, fit.last) == (5, 40)
        assert analysis.fit_power_law(torch.ones(40), last=30).last == 30

    def test_ranks_outside_do_not_count(self) -> None:
        spectrum = power_law(1.0, 60)
        spectrum[:10], spectrum[50:] = np.nan, np.inf
        np.testing.assert_allclose(analysis.fit_power_law(spectrum, 11, 50).exponent, 1)

    def test_negative_values_count_by_magnitude_and_zeros_not_at_all(self) -> None:
        spectrum = np.stack([power_law(1.0, 60), power_law(2.0, 60), power_law(3.0, 60)])
        spectrum[0, 20:30] *= -1
        spectrum[1, 40:] = 0
        spectrum[2, 13:] = 0
        fit = analysis.fit_power_law(spectrum)
        np.testing.assert_allclose(fit.exponent, [1, 2, 3], rtol=1e-12)

    def test_fewer_than_two_values_that_are_not_zero_give_nan(self) -> None:
        spectrum = torch.stack([torch.zeros(30), torch.arange(1, 31.0) ** -1])
        spectrum[0, 15] = 1
        exponent = analysis.fit_power_law(spectrum).exponent
        torch.testing.assert_close(exponent, torch.tensor([torch.nan, 1.0]), equal_nan=True)


class TestCvpca:
    @pytest.mark.parametrize("shape", [(12, 30), (30, 12), (15, 15), (1, 4), (5, 1)], ids=str)
    @pytest.mark.parametrize("shuffles", [1, 4])
    def test_equals_numpy(self, shape: tuple[int, int], shuffles: int) -> None:
        generator = np.random.default_rng(0)
        signal = random(*shape)
        repeats = [signal + 0.3 * generator.standard_normal(shape) for _ in range(2)]
        actual = analysis.cvpca(*repeats, shuffles, torch.Generator().manual_seed(5))
        expected = numpy_cvpca(*repeats, swaps_of(shuffles, shape[0], seed=5))
        assert actual.shape == (min(shape),)
        np.testing.assert_allclose(actual, expected, atol=1e-10)

    def test_is_the_spectrum_of_the_signal_without_noise(self) -> None:
        spectrum = power_law(1.0, 20)
        for shape in ((50, 80), (80, 50)):
            signal = with_spectrum(spectrum, *shape)
            actual = analysis.cvpca(signal, signal)
            np.testing.assert_allclose(actual[:20], spectrum / spectrum.sum(), atol=1e-12)
            np.testing.assert_allclose(actual[20:], 0, atol=1e-12)

    def test_recovers_the_exponent_under_noise_where_pca_does_not(self) -> None:
        generator = np.random.default_rng(0)
        signal = with_spectrum(power_law(1.0, 120), samples=150, units=1000)
        repeats = [signal + 0.07 * generator.standard_normal(signal.shape) for _ in range(2)]
        swaps = torch.Generator().manual_seed(0)
        of_signal = analysis.fit_power_law(analysis.cvpca(*repeats, 4, swaps), last=100)
        of_pca = analysis.fit_power_law(numpy_spectrum(repeats[0]), last=100)
        assert abs(of_signal.exponent - 1) < 0.1
        assert abs(of_pca.exponent - 1) > 0.4

    def test_sums_to_one_in_the_dtype_of_the_repeats(self) -> None:
        x = random(10, 20)
        for dtype in DTYPES:
            repeat = torch.tensor(x, dtype=dtype)
            shared = analysis.cvpca(repeat, repeat.float())
            expected = torch.float64 if dtype == torch.float64 else torch.float32
            assert shared.dtype == expected
            torch.testing.assert_close(shared.sum(), torch.ones((), dtype=expected))

    def test_the_generator_alone_decides(self) -> None:
        repeats = [torch.tensor(random(10, 20, seed=seed)) for seed in (0, 1)]

        def shared(seed: int) -> torch.Tensor:
            return analysis.cvpca(*repeats, generator=torch.Generator().manual_seed(seed))

        assert torch.equal(shared(0), shared(0))
        assert not torch.equal(shared(0), shared(1))

    def test_not_finite_gives_nan(self) -> None:
        repeat = torch.randn(6, 9)
        broken = repeat.clone()
        broken[2, 3] = torch.inf
        assert analysis.cvpca(repeat, broken).isnan().all()


class TestPerturbationDimensionality:
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("shape", [(40, 8), (8, 40), (30, 6, 5), (9, 12, 3, 2)], ids=str)
    def test_equals_numpy(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        clean = torch.tensor(random(*shape), dtype=dtype)
        perturbed = clean + torch.tensor(0.1 * random(*shape, seed=1), dtype=dtype)
        change = clean.double().numpy() - perturbed.double().numpy()
        change = change.reshape(*shape[:2], -1).mean(-1)
        for fraction in (0.9, 0.95):
            actual = analysis.perturbation_dimensionality(clean, perturbed, fraction)
            assert actual.components == numpy_components(numpy_spectrum(change), fraction)
            assert actual.components.dtype == torch.int64
            assert actual.relative == pytest.approx(int(actual.components) / shape[1])

    def test_counts_the_directions_of_the_change(self) -> None:
        change = with_spectrum(np.ones(10), samples=60, units=40)
        clean = random(60, 40)
        found = analysis.perturbation_dimensionality(clean, clean + 1e-3 * change, 0.95)
        assert found.components == 10
        assert found.relative == 0.25

    def test_a_change_within_a_map_averages_out(self) -> None:
        clean = torch.randn(20, 6, 4, dtype=torch.float64)
        change = torch.randn(20, 1, 4, dtype=torch.float64)
        change = (change - change.mean(2, keepdim=True)) * 100
        change[..., 0] += 1e-3 * torch.randn(20, 1, dtype=torch.float64)
        found = analysis.perturbation_dimensionality(clean, clean + change, 0.99)
        assert found.components == 1

    def test_no_change_and_a_constant_one_have_no_dimension(self) -> None:
        clean = torch.randn(7, 5, 3)
        for perturbed in (clean, torch.zeros(7, 5, 3)):
            unperturbed = clean if perturbed is clean else torch.full((7, 5, 3), 0.1)
            found = analysis.perturbation_dimensionality(unperturbed, perturbed)
            assert (found.components, found.relative) == (0, 0)

    def test_not_finite(self) -> None:
        clean = torch.zeros(7, 5)
        clean[3, 3] = torch.nan
        found = analysis.perturbation_dimensionality(clean, torch.zeros(7, 5))
        assert found.components == -1
        assert found.relative.isnan()


CALLS: dict[str, Callable[[Any], Any]] = {
    "participation_ratio": analysis.participation_ratio,
    "effective_rank": analysis.effective_rank,
    "components_for_variance": lambda x: analysis.components_for_variance(x, 0.9),
    "fit_power_law": lambda x: analysis.fit_power_law(x, first=2)[:3],
    "cvpca": lambda x: analysis.cvpca(x, x),
    "perturbation_dimensionality": lambda x: analysis.perturbation_dimensionality(x, 0 * x),
}


def results(of_call: Any) -> tuple[Any, ...]:
    return tuple(of_call) if isinstance(of_call, tuple) else (of_call,)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
class TestKinds:
    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    def test_arrays_give_what_tensors_give_as_arrays_or_scalars(
        self, call: Callable[[Any], Any], dtype: type
    ) -> None:
        array = random(20, 10).astype(dtype) ** 2
        of_array, of_tensor = call(array), call(torch.from_numpy(array))
        for actual, expected in zip(results(of_array), results(of_tensor), strict=True):
            assert isinstance(actual, np.ndarray if expected.dim() else np.generic)
            assert isinstance(expected, torch.Tensor)
            np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)
            assert actual.dtype == expected.numpy().dtype
            wide = np.float64 if dtype == np.float64 else np.float32
            assert actual.dtype in (wide, np.int64)

    def test_any_strides_byte_order_and_read_only_memory(self, call: Callable[[Any], Any]) -> None:
        array = random(20, 10) ** 2
        strided = np.repeat(array, 2, 0)[::-2].astype(">f8")[::-1]
        strided.flags.writeable = False
        for actual, expected in zip(results(call(strided)), results(call(array)), strict=True):
            np.testing.assert_allclose(actual, expected, rtol=1e-6)

    @pytest.mark.parametrize("wrong", [[[1.0, 2.0]], "x", torch.ones(20, 12, dtype=torch.int64)])
    def test_other_kinds_are_refused(self, call: Callable[[Any], Any], wrong: Any) -> None:
        with pytest.raises(TypeError, match=r"(x|spectrum|repeat1|clean) must be .*, got"):
            call(wrong)

    def test_integer_arrays_are_refused(self, call: Callable[[Any], Any]) -> None:
        with pytest.raises(TypeError, match="must be float16, float32 or float64, got int32"):
            call(np.ones((20, 12), dtype=np.int32))

    def test_too_few_axes_are_refused(self, call: Callable[[Any], Any]) -> None:
        with pytest.raises(ValueError, match=r"must have at least .*, got shape \(\)"):
            call(torch.tensor(1.0))


@pytest.mark.parametrize(
    "name", ["participation_ratio", "effective_rank", "components_for_variance", "fit_power_law"]
)
def test_a_batch_of_arrays_gives_arrays(name: str) -> None:
    array = random(3, 20, 10) ** 2
    of_batch, of_one = (results(CALLS[name](x)) for x in (array, array[1]))
    for actual, expected in zip(of_batch, of_one, strict=True):
        assert isinstance(actual, np.ndarray)
        np.testing.assert_allclose(actual[1], expected)


class TestRefusals:
    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda x: analysis.participation_ratio(x[:1]), r"x must have at least 2 samples"),
            (lambda x: analysis.components_for_variance(x, 0), "above 0 and at most 1, got 0"),
            (lambda x: analysis.components_for_variance(x, 1.01), "at most 1, got 1.01"),
            (lambda x: analysis.components_for_variance(x, float("nan")), "got nan"),
            (lambda x: analysis.components_for_variance(x, 10**400), "at most 1, got 1000"),
            (lambda x: analysis.fit_power_law(x, 0), "first must be at least 1, got 0"),
            (lambda x: analysis.fit_power_law(x, 12), "first = 12 to last = 500, got 12 ranks"),
            (lambda x: analysis.fit_power_law(x, 5, 5), "from first = 5 to last = 5"),
            (lambda x: analysis.cvpca(x, x[1:]), r"repeat2 must have shape \(20, 12\) like"),
            (lambda x: analysis.cvpca(x[None], x[None]), r"repeat1 must have shape \[S, D\]"),
            (lambda x: analysis.cvpca(x, x, 0), "shuffles must be at least 1, got 0"),
            (lambda x: analysis.perturbation_dimensionality(x, x.T), "perturbed must have shape"),
            (lambda x: analysis.perturbation_dimensionality(x[:1], x[:1]), "at least 2 samples"),
            (lambda x: analysis.perturbation_dimensionality(x[:, :0], x[:, :0]), "and a unit"),
            (lambda x: analysis.perturbation_dimensionality(x, x, 2), "at most 1, got 2"),
        ],
    )
    def test_values(self, call: Callable[[torch.Tensor], Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            call(torch.ones(20, 12))

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda x: analysis.components_for_variance(x, "1"), "fraction must be a real number"),
            (lambda x: analysis.components_for_variance(x, True), "real number, got bool"),
            (lambda x: analysis.fit_power_law(x, 1.5), "first must be an integer, got float"),
            (lambda x: analysis.fit_power_law(x, last=None), "last must be an integer"),
            (lambda x: analysis.cvpca(x, x.numpy()), "repeat2 must be a Tensor like repeat1"),
            (lambda x: analysis.cvpca(x, x, 2.0), "shuffles must be an integer, got float"),
            (lambda x: analysis.cvpca(x, x, generator=3), "Generator or None, got int"),
            (lambda x: analysis.perturbation_dimensionality(x, None), "perturbed must be a torch"),
        ],
    )
    def test_kinds(self, call: Callable[[torch.Tensor], Any], message: str) -> None:
        with pytest.raises(TypeError, match=message):
            call(torch.ones(20, 12))

    def test_devices(self) -> None:
        x = torch.ones(20, 12)
        with pytest.raises(ValueError, match="repeat2 must be on cpu like repeat1, got meta"):
            analysis.cvpca(x, x.to("meta"))
