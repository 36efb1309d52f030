"""Eigenspectra along a frozen basis, against NumPy in float64."""

from __future__ import annotations

import pytest
import torch
from cases import DTYPES, IMPLEMENTATIONS, case_name, result_dtype
from spectra import (
    SAMPLES,
    assert_eigenvalues,
    assert_gradient_of_eigenvalues,
    eigenbasis,
    expected_spectrum,
    normal,
    rounded,
    tolerance_for,
    with_gradients,
)

all_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
hard_dtypes = pytest.mark.parametrize("dtype", DTYPES[1:], ids=case_name)


@IMPLEMENTATIONS
@hard_dtypes
@SAMPLES
def test_frozen_eigenspectrum_of_hard_samples(
    module: object, name: str, dtype: torch.dtype
) -> None:
    x = rounded(name, dtype)[:, :70]
    basis = eigenbasis(x)
    expected = expected_spectrum(x, basis=basis)
    spectrum, gradient = with_gradients(
        lambda x: module.eigenspectrum(x, basis=basis), x, torch.ones(basis.shape[1])
    )
    assert spectrum.dtype == result_dtype(dtype)
    assert_eigenvalues(spectrum, expected, tolerance_for(name))
    assert_eigenvalues(module.eigenspectrum(x, basis=basis), expected, tolerance_for(name))
    assert (spectrum.diff() <= 0).all()
    assert gradient.isfinite().all()


@IMPLEMENTATIONS
@all_dtypes
@pytest.mark.parametrize("ranks", [1, 6, 20, 90])
def test_gradient_along_a_frozen_basis(module: object, ranks: int, dtype: torch.dtype) -> None:
    x, basis = normal(2, 30, 20).to(dtype), normal(20, ranks).to(result_dtype(dtype))
    spectrum, gradient = with_gradients(
        lambda x: module.eigenspectrum(x, basis=basis, correction=0), x, normal(2, ranks)
    )
    exact = x.double().requires_grad_()
    centered = exact - exact.mean(1, keepdim=True)
    variances = (centered @ basis.double()).square().mean(1)
    expected = variances.sort(dim=1, descending=True).values
    (expected_gradient,) = torch.autograd.grad(expected, exact, normal(2, ranks))
    assert gradient.dtype == dtype
    assert_eigenvalues(spectrum, expected.detach())
    for actual, reference in zip(gradient, expected_gradient, strict=True):
        assert_gradient_of_eigenvalues(actual, reference)


@IMPLEMENTATIONS
def test_the_basis_is_a_constant(module: object) -> None:
    x = normal(9, 4).requires_grad_()
    basis = normal(4, 3).requires_grad_()
    spectrum = module.eigenspectrum(x, basis=basis)
    gradients = torch.autograd.grad(spectrum.sum(), (x, basis), allow_unused=True)
    assert gradients[0].any()
    assert gradients[1] is None


@IMPLEMENTATIONS
def test_its_own_eigenvectors_as_basis_give_the_exact_spectrum(module: object) -> None:
    x = normal(40, 12)
    torch.testing.assert_close(
        module.eigenspectrum(x, basis=eigenbasis(x)), module.eigenspectrum(x)
    )


@IMPLEMENTATIONS
def test_variance_below_the_tolerance_is_zero_along_a_basis_too(module: object) -> None:
    x = normal(40, 3) * torch.tensor([1.0, 1e-4, 1e-2])
    x.requires_grad_()
    spectrum = module.eigenspectrum(x.float(), basis=torch.eye(3))
    assert (spectrum > 0).tolist() == [True, True, False]
    (gradient,) = torch.autograd.grad(spectrum.sum(), x)
    assert gradient.any(0).tolist() == [True, False, True]
