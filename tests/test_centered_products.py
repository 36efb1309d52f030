"""The operators between samples and the spectra of their covariances, against float64."""

from __future__ import annotations

import pytest
import torch
from cases import DTYPES, LAYOUTS, assert_same_bits, case_name, result_dtype
from conftest import CAPABILITIES
from spectra import RESULT_DTYPES, normal
from torch import Tensor

import selkern
from selkern import _C

SCALE = 0.25
VALUE_TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-12}
GRADIENT_TOLERANCE = {
    torch.float16: 2e-3,
    torch.bfloat16: 1e-2,
    torch.float32: 1e-5,
    torch.float64: 1e-12,
}
both_products = pytest.mark.parametrize("gram", [False, True], ids=["of_units", "gram"])
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=case_name)


@pytest.fixture(params=[*CAPABILITIES, "emulated"])
def operators(request: pytest.FixtureRequest) -> object:
    """The CPU's kernels for every instruction set, and those for CUDA."""
    if request.param == "emulated":
        request.getfixturevalue("emulator")
    else:
        request.getfixturevalue("restore_capability")
        _C.set_cpu_capability(request.param)
    return selkern._pooling_autograd._ops


def centered(x: Tensor) -> Tensor:
    x = x.double()
    x = x - x.mean(1, keepdim=True)
    return (x - x.mean(1, keepdim=True)) * SCALE


def check_product(operators: object, x: Tensor, gram: bool) -> Tensor:
    product = operators.centered_product(x, SCALE, gram)
    assert product.dtype == result_dtype(x.dtype)
    assert product.is_contiguous()
    expected = centered(x)
    expected = expected @ expected.mT if gram else expected.mT @ expected
    assert product.shape == expected.shape
    largest = expected.abs().amax((1, 2), keepdim=True)
    assert ((product - expected).abs() <= VALUE_TOLERANCE[product.dtype] * largest).all()
    return product


def weights_for(x: Tensor, gram: bool) -> Tensor:
    size = x.shape[1] if gram else x.shape[2]
    return normal(x.shape[0], size, size, seed=1).to(result_dtype(x.dtype))


def check_matmul(operators: object, x: Tensor, gram: bool) -> None:
    weights = weights_for(x, gram)
    result = operators.centered_matmul(x, weights, SCALE, gram)
    assert result.dtype == x.dtype
    assert result.is_contiguous()
    weights, samples = weights.double(), centered(x)
    expected = weights @ samples if gram else samples @ weights
    tolerance = GRADIENT_TOLERANCE[x.dtype] * expected.abs().max()
    assert ((result.double() - expected).abs() <= tolerance).all()


# Around the sizes of panels, tiles, runs and blocks, and more matrices than threads.
SHAPES = [
    *[(1, 1, 1), (1, 2, 3), (3, 5, 16), (5, 8, 17), (1, 33, 31), (2, 70, 64), (1, 65, 129)],
    *[(4, 128, 20), (1, 20, 300), (1, 1100, 9), (1, 9, 2200), (1, 40, 257)],
]


@both_products
@every_dtype
@pytest.mark.parametrize("shape", SHAPES, ids=case_name)
def test_products_and_their_gradients(
    operators: object, shape: tuple, dtype: torch.dtype, gram: bool
) -> None:
    x = (normal(*shape) + 1).to(dtype)
    product = check_product(operators, x, gram)
    if operators is torch.ops.selkern:
        assert torch.equal(product, product.mT)
    check_matmul(operators, x, gram)


@both_products
@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "expanded_positions"])
def test_samples_of_every_layout(operators: object, layout: str, gram: bool) -> None:
    for shape in [(3, 9, 17), (2, 5, 64)]:
        x = LAYOUTS[layout](normal(*shape).float())
        check_product(operators, x, gram)
        check_matmul(operators, x, gram)


def test_weights_with_strides(operators: object) -> None:
    x = normal(2, 9, 5).float()
    weights = weights_for(x, False)
    expected = operators.centered_matmul(x, weights, SCALE, False)
    strided = weights.mT.contiguous().mT
    assert_same_bits([operators.centered_matmul(x, strided, SCALE, False)], [expected])


@both_products
@pytest.mark.parametrize("shape", [(1, 128, 32), (1, 300, 64), (1, 1000, 32), (1, 5000, 100)])
def test_units_that_fire_in_one_sample(shape: tuple, gram: bool) -> None:
    """Many equal terms are rounded the same way: in float32 their error grows with every one."""
    _, samples, units = shape
    x = torch.zeros(shape)
    unit = torch.arange(units)
    x[0, unit * 7 % samples, unit] = 1 + unit / 10
    if gram:
        x = x[:, :300]
    check_product(torch.ops.selkern, x, gram)


@both_products
@pytest.mark.parametrize("mean", [1e4, -3e3])
def test_samples_far_from_zero(operators: object, mean: float, gram: bool) -> None:
    x = (normal(2, 300, 24) + mean * (1 + normal(24, seed=1).abs())).float()
    check_product(operators, x, gram)


@both_products
@pytest.mark.parametrize("factor", [1e-15, 1e18])
def test_tiny_and_huge_samples(operators: object, factor: float, gram: bool) -> None:
    x = normal(2, 60, 24)
    product = operators.centered_product((x * factor).float(), 2**-8, gram).double()
    expected = centered(x) / SCALE * 2**-8 * factor
    expected = expected @ expected.mT if gram else expected.mT @ expected
    torch.testing.assert_close(product, expected, rtol=2e-6, atol=2e-6 * expected.abs().max())


@both_products
def test_any_number_of_threads_and_matrices_gives_the_same_bits(
    capability: str, restore_threads: None, gram: bool
) -> None:
    x = normal(3, 70, 130).float()
    weights = weights_for(x, gram)
    ops = torch.ops.selkern
    torch.set_num_threads(1)
    expected = [ops.centered_product(x, 1.0, gram), ops.centered_matmul(x, weights, 1.0, gram)]
    for threads in (2, 3, 5):
        torch.set_num_threads(threads)
        together = [ops.centered_product(x, 1.0, gram), ops.centered_matmul(x, weights, 1.0, gram)]
        assert_same_bits(together, expected)
        for i in range(len(x)):
            alone = [
                ops.centered_product(x[i : i + 1], 1.0, gram),
                ops.centered_matmul(x[i : i + 1], weights[i : i + 1], 1.0, gram),
            ]
            assert_same_bits(alone, [result[i : i + 1] for result in expected])


@both_products
def test_equal_samples_leave_nothing(operators: object, gram: bool) -> None:
    for samples in range(3, 100):
        x = torch.full((1, samples, 5), 3.3)
        assert not operators.centered_product(x, 1.0, gram).any()


@both_products
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_samples_that_are_not_finite_leave_other_matrices_alone(
    operators: object, value: float, gram: bool
) -> None:
    x = normal(3, 20, 12).float()
    weights = weights_for(x, gram)
    expected = operators.centered_product(x, 1.0, gram)
    expected_result = operators.centered_matmul(x, weights, 1.0, gram)
    x[1, 5, 7] = value
    product = operators.centered_product(x, 1.0, gram)
    result = operators.centered_matmul(x, weights, 1.0, gram)
    assert not product[1].isfinite().all()
    assert not result[1].isfinite().all()
    assert_same_bits([product[[0, 2]]], [expected[[0, 2]]])
    assert_same_bits([result[[0, 2]]], [expected_result[[0, 2]]])


@both_products
@pytest.mark.parametrize("shape", [(0, 5, 3), (2, 0, 3), (2, 5, 0)], ids=case_name)
def test_nothing_to_multiply(operators: object, shape: tuple, gram: bool) -> None:
    x = torch.zeros(shape)
    size = shape[1] if gram else shape[2]
    product = operators.centered_product(x, 1.0, gram)
    assert torch.equal(product, torch.zeros(shape[0], size, size))
    assert operators.centered_matmul(x, product, 1.0, gram).shape == shape


def test_weights_that_do_not_fit_are_refused(operators: object) -> None:
    x = torch.zeros(2, 5, 3)
    for weights in (
        torch.zeros(2, 5, 5),
        torch.zeros(1, 3, 3),
        torch.zeros(3, 3),
        torch.zeros(2, 3, 3, dtype=torch.float64),
    ):
        with pytest.raises(ValueError, match="weights must hold a matrix of 3 rows and columns"):
            operators.centered_matmul(x, weights, 1.0, False)
    with pytest.raises(ValueError, match=r"x must have shape \[B, N, D\], got 2 axes"):
        operators.centered_product(x[0], 1.0, False)


# ------------------------------------------------------------------- eigenvalues of these products


def expected_spectrum(eigenvalues: Tensor, samples: int, correction: int) -> Tensor:
    values = eigenvalues.double().flip(-1)
    tolerance = VALUE_TOLERANCE[eigenvalues.dtype]
    values = torch.where(values <= tolerance * values[:, :1], 0.0, values)
    values[:, samples - 1 :] = 0
    return values / (SCALE**2 * (samples - correction))


@RESULT_DTYPES
@pytest.mark.parametrize("samples", [2, 7, 500])
@pytest.mark.parametrize("correction", [0, 1])
def test_spectrum_of_a_covariance(
    operators: object, dtype: torch.dtype, samples: int, correction: int
) -> None:
    size = min(samples, 40)
    eigenvalues = normal(3, size).abs().sort().values.to(dtype)
    eigenvalues[0, 0] = eigenvalues[0, -1] * (1e-7 if dtype == torch.float32 else 1e-13)
    eigenvalues[1, : size // 2] = -eigenvalues[1, : size // 2].flip(0) * 1e-15
    spectrum = operators.covariance_spectrum(eigenvalues, samples, correction, SCALE)
    expected = expected_spectrum(eigenvalues, samples, correction)
    assert torch.equal(spectrum == 0, expected == 0)
    torch.testing.assert_close(spectrum, expected.to(dtype))

    grad = normal(3, size, seed=1).to(dtype)
    of_eigenvalues = operators.covariance_spectrum_backward(
        grad, spectrum, samples, correction, SCALE
    )
    factor = 2 / (SCALE * (samples - correction))
    expected = torch.where(spectrum == 0, 0.0, grad * factor).flip(-1)
    torch.testing.assert_close(of_eigenvalues, expected)


def test_what_is_just_rounding_is_zero(operators: object) -> None:
    for dtype, tolerance in VALUE_TOLERANCE.items():
        eigenvalues = torch.tensor([[tolerance, 1.0]], dtype=dtype)
        assert operators.covariance_spectrum(eigenvalues, 9, 1, 1.0)[0, 1] == 0
        eigenvalues[0, 0] *= 1.001
        assert operators.covariance_spectrum(eigenvalues, 9, 1, 1.0)[0, 1] > 0


def test_a_spectrum_keeps_nan_and_infinity(operators: object) -> None:
    eigenvalues = torch.tensor([[1.0, 2.0, torch.inf], [torch.nan, torch.nan, torch.nan]])
    spectrum = operators.covariance_spectrum(eigenvalues, 10, 1, 1.0)
    assert spectrum[0].tolist() == pytest.approx([torch.inf, 2 / 9, 1 / 9])
    assert spectrum[1].isnan().all()
    assert operators.covariance_spectrum(eigenvalues, 3, 1, 1.0)[1].isnan().all()


def test_no_spectra(operators: object) -> None:
    for shape in [(0, 4), (3, 0)]:
        empty = torch.zeros(shape)
        assert operators.covariance_spectrum(empty, 5, 1, 1.0).shape == shape
        assert operators.covariance_spectrum_backward(empty, empty, 5, 1, 1.0).shape == shape


def test_too_few_samples_for_a_spectrum_are_refused(operators: object) -> None:
    spectrum = torch.ones(1, 3)
    with pytest.raises(ValueError, match="samples must be more than correction, got 1 and 1"):
        operators.covariance_spectrum(spectrum, 1, 1, 1.0)
    with pytest.raises(ValueError, match=r"grad must be like spectrum, got \[1, 2\] of float32"):
        operators.covariance_spectrum_backward(spectrum[:, :2], spectrum, 5, 1, 1.0)
