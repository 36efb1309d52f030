"""The public spectrum functions on the CUDA kernels, executed on the CPU or on a GPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from cases import DTYPES, case_name
from spectra import (
    RESULT_DTYPES,
    SPECTRUM_OPERATORS,
    assert_eigenvalues,
    assert_eigenvectors,
    assert_gradient_of_eigenvalues,
    descending_samples,
    eigenbasis,
    expected_eigenvalues,
    expected_spectrum,
    normal,
    symmetric,
    with_eigenvalues,
)
from torch import Tensor

import selkern
from selkern import reference


@RESULT_DTYPES
@pytest.mark.parametrize("size", [1, 9, 33])
def test_eigenvalues_and_vectors(device: torch.device, size: int, dtype: torch.dtype) -> None:
    apart = with_eigenvalues(*(1.0 + torch.arange(size)).tolist())
    a = torch.stack([symmetric(size), apart, torch.ones(size, size).double()]).to(dtype)
    assert_eigenvalues(selkern.linalg.eigvalsh(a.to(device)).cpu(), expected_eigenvalues(a))
    pair = [x.cpu() for x in selkern.linalg.eigh(a.to(device))]
    assert_eigenvalues(pair[0], expected_eigenvalues(a))
    assert_eigenvectors(a, *pair)


@pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
@pytest.mark.parametrize("shape", [(20, 12), (12, 20)], ids=case_name)
@pytest.mark.parametrize("mode", ["exact", "frozen"])
def test_spectrum_and_loss(
    device: torch.device, mode: str, shape: tuple, dtype: torch.dtype
) -> None:
    ranks = min(shape[0] - 1, shape[1])
    x = descending_samples(*shape, torch.linspace(1, 0.3, ranks).double()).to(dtype)
    of_numpy = None if mode == "exact" else eigenbasis(x)
    exact = x.double().requires_grad_()
    options = {"anchor": 3, "exponent": 0.5}
    expected = reference.spectral_loss(
        exact, basis=None if of_numpy is None else of_numpy.double(), **options
    )
    (of_reference,) = torch.autograd.grad(expected, exact)
    basis = None if of_numpy is None else of_numpy.to(device)
    leaf = x.to(device).requires_grad_()
    spectrum = selkern.eigenspectrum(leaf, basis=basis)
    assert_eigenvalues(spectrum.detach().cpu(), expected_spectrum(x, basis=of_numpy))
    loss = selkern.spectral_loss(leaf, basis=basis, **options)
    torch.testing.assert_close(
        loss.detach().cpu().double(), expected.detach(), rtol=1e-3, atol=1e-4
    )
    (gradient,) = torch.autograd.grad(loss, leaf)
    if dtype == torch.float64:
        assert_gradient_of_eigenvalues(gradient.cpu(), of_reference)
    difference = (gradient.cpu().double() - of_reference).norm()
    assert difference <= 2e-2 * of_reference.norm()


@pytest.mark.parametrize("operator", SPECTRUM_OPERATORS.values(), ids=SPECTRUM_OPERATORS)
def test_derivatives_of_both_orders(
    device: torch.device, operator: Callable[[object, Tensor], Tensor]
) -> None:
    def derivatives(module: object, x: Tensor) -> list[Tensor]:
        x = x.detach().requires_grad_()
        value = operator(module, x)
        (first,) = torch.autograd.grad(value.sin().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x)
        return [y.detach().cpu() for y in (value, first, second)]

    x = normal(9, 5)
    actual = derivatives(selkern, x.to(device))
    torch.testing.assert_close(actual, derivatives(reference, x), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("shape", [(9, 4), (4, 9)], ids=case_name)
def test_what_is_not_finite_stays_in_its_matrix(device: torch.device, shape: tuple) -> None:
    x = normal(3, *shape).to(device)
    clean = selkern.eigenspectrum(x)
    x[1, 2, 3] = torch.nan
    spectrum = selkern.eigenspectrum(x)
    assert spectrum[1].isnan().all()
    assert torch.equal(spectrum[[0, 2]], clean[[0, 2]])
    penalty = selkern.power_law_penalty(spectrum, anchor=1)
    assert penalty.isnan().tolist() == [False, True, False]
