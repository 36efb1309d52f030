"""Covariances and eigenspectra against NumPy in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from cases import (
    DTYPES,
    IMPLEMENTATIONS,
    assert_same_bits,
    assert_within,
    case_name,
    result_dtype,
)
from spectra import (
    EIGENVALUE_TOLERANCE,
    HARD_SAMPLES,
    RESULT_DTYPES,
    SAMPLES,
    as_array,
    assert_eigenvalues,
    assert_gradient_of_eigenvalues,
    descending_samples,
    expected_gradient,
    expected_spectrum,
    no_eigenvectors,
    normal,
    reflected,
    rounded,
    tolerance_for,
    with_gradients,
)
from torch import Tensor

import selkern

SHAPES = [(9, 4), (4, 9), (7, 7), (2, 1), (2, 5), (33, 32), (17, 70), (70, 40), (300, 3), (3, 300)]
all_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
hard_dtypes = pytest.mark.parametrize("dtype", DTYPES[1:], ids=case_name)


# ------------------------------------------------------------------------------------- covariance


@IMPLEMENTATIONS
@hard_dtypes
@SAMPLES
def test_covariance_of_hard_samples(module: object, name: str, dtype: torch.dtype) -> None:
    x = rounded(name, dtype)[:, :70]
    samples = as_array(x)
    samples = samples - samples.mean(0)
    samples = samples - samples.mean(0)
    expected = torch.from_numpy(samples.T @ samples / (len(samples) - 1))
    actual = module.covariance(x)
    assert actual.dtype == result_dtype(dtype)
    variance = expected.diagonal()
    scale = (variance[:, None] * variance).sqrt()
    assert_within(actual, expected, tolerance_for(name)[actual.dtype], scale)


@IMPLEMENTATIONS
@pytest.mark.parametrize("correction", [0, 1, 3])
def test_covariance_is_that_of_numpy(module: object, correction: int) -> None:
    x = normal(2, 3, 9, 5)
    expected = [[np.cov(as_array(m).T, ddof=correction) for m in row] for row in x]
    torch.testing.assert_close(
        module.covariance(x, correction=correction), torch.tensor(np.array(expected))
    )


# ----------------------------------------------------------------------------------- eigenspectra


@IMPLEMENTATIONS
@hard_dtypes
@SAMPLES
def test_eigenspectrum_of_hard_samples(module: object, name: str, dtype: torch.dtype) -> None:
    x = rounded(name, dtype)
    expected = expected_spectrum(x)
    alone = module.eigenspectrum(x)
    beside_a_gradient, gradient = with_gradients(module.eigenspectrum, x, torch.ones_like(expected))
    assert gradient.isfinite().all()
    tolerance = tolerance_for(name)
    for spectrum in (alone, beside_a_gradient):
        assert spectrum.dtype == result_dtype(dtype)
        assert_eigenvalues(spectrum, expected, tolerance)
        assert (spectrum.diff() <= 0).all()
        is_rounding = expected < 1e-3 * EIGENVALUE_TOLERANCE[spectrum.dtype] * expected[0]
        assert (spectrum[is_rounding] == 0).all()
        assert (spectrum >= 0).all()


@IMPLEMENTATIONS
@all_dtypes
@pytest.mark.parametrize("shape", SHAPES, ids=case_name)
@pytest.mark.parametrize("correction", [0, 1])
def test_eigenspectrum_of_every_shape(
    module: object, correction: int, shape: tuple, dtype: torch.dtype
) -> None:
    x = normal(3, *shape).to(dtype)
    expected = expected_spectrum(x, correction)
    assert_eigenvalues(module.eigenspectrum(x, correction=correction), expected)
    assert_eigenvalues(module.eigenspectrum(x[1], correction=correction), expected[1])
    if shape[0] <= shape[1]:
        assert not module.eigenspectrum(x, correction=correction)[:, shape[0] - 1 :].any()


def test_a_power_law_over_two_thousand_ranks() -> None:
    law = 1 / torch.arange(1, 2001).double()
    # Cosines are orthogonal, and have no mean.
    angles = torch.outer(torch.arange(2048).double() + 0.5, torch.arange(1, 2001) * torch.pi / 2048)
    x = reflected(angles.cos() * (2 * law).sqrt()).float()
    spectrum = selkern.eigenspectrum(x, correction=0)
    assert_eigenvalues(spectrum, law)
    assert selkern.power_law_penalty(spectrum) < 1e-2


@pytest.mark.parametrize("seed", [0, 3])
def test_large_samples_of_rank_one_have_one_eigenvalue(seed: int) -> None:
    x = normal(2000, 1, seed=seed).float() @ torch.ones(1, 1500)
    assert selkern.eigenspectrum(x).count_nonzero() == 1


@IMPLEMENTATIONS
def test_an_example_worked_by_hand(module: object) -> None:
    x = torch.tensor([[5.0, 1.0], [1.0, 1.0], [3.0, 2.0], [3.0, 0.0]])
    torch.testing.assert_close(module.covariance(x), torch.tensor([[8 / 3, 0.0], [0.0, 2 / 3]]))
    torch.testing.assert_close(module.eigenspectrum(x), torch.tensor([8 / 3, 2 / 3]))
    torch.testing.assert_close(module.eigenspectrum(x, correction=0), torch.tensor([2.0, 0.5]))
    few = torch.tensor([[1.0, 0.0, 2.0], [-1.0, 0.0, 4.0]])
    torch.testing.assert_close(module.eigenspectrum(few), torch.tensor([4.0, 0.0]))
    basis = torch.tensor([[0.0, 0.6], [1.0, 0.8]])
    torch.testing.assert_close(
        module.eigenspectrum(x, basis=basis, correction=0), torch.tensor([1.04, 0.5])
    )


@IMPLEMENTATIONS
@all_dtypes
@pytest.mark.parametrize("shape", [(0, 5, 3), (2, 0, 3, 5), (0, 1, 5, 5), (3, 5, 0), (5, 0)])
def test_empty_batches_and_no_units(module: object, shape: tuple, dtype: torch.dtype) -> None:
    x = torch.zeros(shape, dtype=dtype, requires_grad=True)
    *batch, samples, units = shape
    covariance = module.covariance(x)
    spectrum = module.eigenspectrum(x)
    along = module.eigenspectrum(x, basis=torch.zeros(units, 2))
    without_directions = module.eigenspectrum(x, basis=torch.zeros(units, 0))
    assert covariance.shape == (*batch, units, units)
    assert spectrum.shape == (*batch, min(samples, units))
    assert along.shape == (*batch, 2)
    assert without_directions.shape == (*batch, 0)
    for output in (covariance, spectrum, along, without_directions):
        assert output.dtype == result_dtype(dtype)
        (gradient,) = torch.autograd.grad(output.sum(), x, allow_unused=True)
        assert gradient is None or gradient.shape == shape


STRIDES: dict[str, Callable[[Tensor], Tensor]] = {
    "samples_last": lambda x: x.mT.contiguous().mT,
    "batch_last": lambda x: x.movedim(0, -1).contiguous().movedim(-1, 0),
    "every_second_unit": lambda x: torch.stack([x, torch.full_like(x, torch.nan)], -1).flatten(-2)[
        ..., ::2
    ],
    "without_first_sample": lambda x: torch.cat([torch.full_like(x[:, :1], torch.nan), x], 1)[
        :, 1:
    ],
    "expanded_batch": lambda x: x[:1].expand_as(x),
    "expanded_samples": lambda x: x[:, :1].expand_as(x),
    "expanded_units": lambda x: x[..., :1].expand_as(x),
}


@IMPLEMENTATIONS
@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("shape", [(9, 4), (4, 9)], ids=case_name)
def test_any_strides(module: object, shape: tuple, stride: str) -> None:
    x = STRIDES[stride](normal(3, *shape).float())
    basis = normal(4, shape[1]).float().mT
    slopes = torch.linspace(1, 2, 4).expand(3, 4)
    for function in (module.eigenspectrum, lambda x: module.eigenspectrum(x, basis=basis)):
        actual = with_gradients(function, x, slopes)
        expected = with_gradients(function, x.double(), slopes)
        assert_eigenvalues(actual[0], expected[0])
        assert actual[1].shape == x.shape
        if "expanded" not in stride:
            torch.testing.assert_close(actual[1].double(), expected[1], rtol=1e-4, atol=1e-5)


@IMPLEMENTATIONS
@RESULT_DTYPES
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("shape", [(9, 4), (4, 9), (60, 300)], ids=case_name)
def test_what_is_not_finite_stays_in_its_matrix(
    module: object, shape: tuple, value: float, dtype: torch.dtype
) -> None:
    x = normal(4, *shape).to(dtype)
    slopes = torch.ones(4, min(shape))
    clean = with_gradients(module.eigenspectrum, x, slopes)
    x[2, 1, 3] = value
    actual = with_gradients(module.eigenspectrum, x, slopes)
    kept = torch.tensor([0, 1, 3])
    for dirty, expected in zip(actual, clean, strict=True):
        assert dirty[2].isnan().all()
        assert torch.equal(dirty[kept], expected[kept])
    assert module.eigenspectrum(x)[2].isnan().all()
    basis = normal(shape[1], 3).to(dtype)
    along = module.eigenspectrum(x, basis=basis)
    assert along[2].isnan().all()
    assert along[kept].isfinite().all()


# -------------------------------------------------------------------------------------- gradients


@IMPLEMENTATIONS
@all_dtypes
@pytest.mark.parametrize("shape", [(40, 12), (13, 40), (300, 12)], ids=case_name)
def test_gradient_where_eigenvalues_are_apart(
    module: object, shape: tuple, dtype: torch.dtype
) -> None:
    law = torch.linspace(1, 0.1, 12, dtype=torch.float64)
    x = descending_samples(*shape, law).to(dtype)
    ranks = min(shape)
    slopes = normal(ranks)
    slopes[12:] = 0
    spectrum, gradient = with_gradients(module.eigenspectrum, x, slopes)
    assert gradient.dtype == dtype
    # Rounding to low precision adds variance along the directions without any.
    assert_eigenvalues(spectrum, expected_spectrum(x))
    assert_gradient_of_eigenvalues(gradient, expected_gradient(x, as_array(slopes)))


@IMPLEMENTATIONS
@hard_dtypes
@SAMPLES
def test_gradient_of_a_symmetric_function_of_hard_samples(
    module: object, name: str, dtype: torch.dtype
) -> None:
    x = rounded(name, dtype).requires_grad_()
    spectrum = module.eigenspectrum(x)
    relative = spectrum.detach() / spectrum.detach().max().clamp(min=1e-38)
    # A function of the spectrum has derivatives that are equal where eigenvalues are.
    (gradient,) = torch.autograd.grad(spectrum, x, relative)
    assert gradient.isfinite().all()
    expected = expected_spectrum(x)
    slopes = expected / expected.max().clamp(min=1e-38)
    of_reference = expected_gradient(x, as_array(slopes))
    if name.startswith("far_mean"):
        difference = (gradient.double() - of_reference).norm()
        assert difference <= 1e-2 * of_reference.norm()
    else:
        assert_gradient_of_eigenvalues(gradient, of_reference)


@IMPLEMENTATIONS
@RESULT_DTYPES
def test_zeroed_ranks_have_no_gradient(module: object, dtype: torch.dtype) -> None:
    x = HARD_SAMPLES["dependent_units"]().to(dtype).requires_grad_()
    spectrum = module.eigenspectrum(x)
    assert (spectrum[:15] > 0).all()
    assert not spectrum[15:].any()
    (gradient,) = torch.autograd.grad(spectrum[15:].sum(), x)
    assert not gradient.any()


@IMPLEMENTATIONS
@RESULT_DTYPES
@pytest.mark.parametrize("shape", [(40, 24), (15, 24)], ids=case_name)
def test_dead_units_have_a_gradient_where_that_of_the_function_is_infinite_at_zero(
    module: object, shape: tuple, dtype: torch.dtype
) -> None:
    x = normal(*shape).to(dtype)
    x[:, 3::2] = 0
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(module.eigenspectrum(x).sqrt().sum(), x)
    assert gradient.isfinite().all()
    assert gradient.any()


# ------------------------------------------------------------------------------------ how it works


def _outputs_and_leaves(module: object) -> list[tuple[Tensor, Tensor]]:
    basis = normal(12, 5).float()
    functions = [
        module.covariance,
        module.eigenspectrum,
        lambda x: module.eigenspectrum(x.mT),
        lambda x: module.eigenspectrum(x, basis=basis),
        lambda x: module.linalg.eigvalsh(x[:12] + x[:12].mT),
    ]
    leaves = [normal(30, 12).float().requires_grad_() for _ in functions]
    return [(function(leaf), leaf) for function, leaf in zip(functions, leaves, strict=True)]


def _gradients(outputs: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
    return [torch.autograd.grad(output.square().sum(), leaf)[0] for output, leaf in outputs]


@IMPLEMENTATIONS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=case_name)
def test_autocast_changes_nothing(module: object, dtype: torch.dtype) -> None:
    with torch.autocast("cpu", dtype):
        lowered = _outputs_and_leaves(module)
    expected = _outputs_and_leaves(module)
    assert_same_bits([output for output, _ in lowered], [output for output, _ in expected])
    assert_same_bits(_gradients(lowered), _gradients(expected))


def test_autocast_around_the_backward_changes_nothing() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        lowered = _gradients(_outputs_and_leaves(selkern))
    assert_same_bits(lowered, _gradients(_outputs_and_leaves(selkern)))


def test_autocast_around_second_derivatives_changes_nothing() -> None:
    second = []
    for enabled in (True, False):
        for output, leaf in _outputs_and_leaves(selkern):
            loss = output.square().sum()
            (gradient,) = torch.autograd.grad(loss, leaf, create_graph=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                second += torch.autograd.grad(gradient.square().sum(), leaf)
    half = len(second) // 2
    torch.testing.assert_close(second[:half], second[half:])


@pytest.mark.parametrize("seed", range(4))
def test_large_samples_of_rank_one_have_one_eigenvalue_and_a_gradient(seed: int) -> None:
    """LAPACK's own float32 eigenvalues, with vectors, would show others."""
    source = torch.Generator().manual_seed(seed)
    x = (torch.rand(2000, 1, generator=source) < 0.5).float() * torch.full((1000,), 1.37)
    assert selkern.eigenspectrum(x.requires_grad_()).count_nonzero() == 1


@pytest.mark.parametrize("shape", [(30, 8), (8, 30), (4, 8, 30), (400, 300)], ids=case_name)
def test_values_alone_compute_no_vectors(monkeypatch: pytest.MonkeyPatch, shape: tuple) -> None:
    x = normal(*shape).float()
    with no_eigenvectors(monkeypatch):
        selkern.eigenspectrum(x)
    with no_eigenvectors(monkeypatch), torch.no_grad():
        assert not selkern.eigenspectrum(x.requires_grad_()).requires_grad


@RESULT_DTYPES
def test_a_matrix_does_not_depend_on_those_beside_it(dtype: torch.dtype) -> None:
    x = normal(19, 12, 30).to(dtype)
    spectrum = selkern.eigenspectrum(x)
    order = torch.randperm(19, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(selkern.eigenspectrum(x[order]), spectrum[order])
    torch.testing.assert_close(selkern.eigenspectrum(x[3]), spectrum[3])


def test_samples_that_lapack_fails_on() -> None:
    """Units whose variances differ by more than float32 holds."""
    x = (normal(400, 320) * torch.exp(-torch.arange(320.0) / 2)).float()
    expected = selkern.reference.eigenspectrum(x.double())
    spectrum = selkern.eigenspectrum(x.requires_grad_())
    assert ((spectrum - expected).abs() <= 2e-6 * expected[0]).all()
