"""The mean over layers of the penalty on their spectra, against the definition in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import (
    DTYPES,
    IMPLEMENTATIONS,
    VALUE_TOLERANCE,
    case_name,
    result_dtype,
)
from spectra import (
    HARD_SAMPLES,
    RESULT_DTYPES,
    SAMPLES,
    assert_gradient_of_eigenvalues,
    descending_samples,
    eigenbasis,
    expected_gradient,
    expected_penalty,
    expected_spectrum,
    no_eigenvectors,
    normal,
    rounded,
    value_and_gradient,
)

import selkern

all_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
hard_dtypes = pytest.mark.parametrize("dtype", DTYPES[1:], ids=case_name)


@IMPLEMENTATIONS
@all_dtypes
@pytest.mark.parametrize("shape", [(40, 24), (24, 60), (30, 30)], ids=case_name)
def test_the_loss_follows_its_definition(module: object, shape: tuple, dtype: torch.dtype) -> None:
    # Its smallest eigenvalue is not so small that an error of the tolerance would matter.
    ranks = min(shape[0] - 1, shape[1])
    x = descending_samples(*shape, torch.linspace(1, 0.2, ranks).double()).to(dtype)
    spectrum = expected_spectrum(x)
    spectrum[shape[0] - 1 :] = 0
    options = {"anchor": 5, "exponent": 0.5, "width": shape[1]}
    expected, derivatives = expected_penalty(spectrum, **options)
    value, gradient = value_and_gradient(
        lambda x: module.spectral_loss(x, anchor=5, exponent=0.5), x
    )
    assert value.dtype == result_dtype(dtype)
    assert value.shape == ()
    # An error in the anchor's eigenvalue reaches every rank.
    tolerance = 100 * VALUE_TOLERANCE[dtype]
    assert abs(value.item() - expected) <= tolerance * max(1, expected)
    assert gradient.dtype == dtype
    of_reference = expected_gradient(x, derivatives)
    difference = (gradient.double() - of_reference).norm() / of_reference.norm()
    assert difference <= {torch.float64: 1e-9, torch.bfloat16: 1e-2}.get(dtype, 2e-3)


@IMPLEMENTATIONS
@all_dtypes
def test_the_loss_along_a_frozen_basis(module: object, dtype: torch.dtype) -> None:
    x = normal(30, 20).to(dtype)
    basis = normal(20, 15).to(result_dtype(dtype))
    spectrum = expected_spectrum(x, basis=basis)
    exact = x.double().requires_grad_()
    centered = exact - exact.mean(0)
    along = ((centered @ basis.double()).square().sum(0) / 29).sort(descending=True).values
    expected, derivatives = expected_penalty(spectrum, width=20)
    (of_reference,) = torch.autograd.grad(along, exact, torch.from_numpy(derivatives))
    value, gradient = value_and_gradient(lambda x: module.spectral_loss(x, basis=basis), x)
    assert abs(value.item() - expected) <= 10 * VALUE_TOLERANCE[dtype] * max(1, expected)
    assert gradient.dtype == dtype
    assert_gradient_of_eigenvalues(gradient, of_reference)


@IMPLEMENTATIONS
def test_the_loss_is_the_mean_over_layers(module: object) -> None:
    layers = {"conv": normal(40, 5, 3, 3), "hidden": normal(40, 20).float(), "few": normal(14, 30)}
    alone = [
        module.power_law_penalty(module.eigenspectrum(x.flatten(1)), width=x[0].numel())
        for x in layers.values()
    ]
    expected = torch.stack([penalty.double() for penalty in alone]).mean()
    torch.testing.assert_close(module.spectral_loss(layers), expected)
    torch.testing.assert_close(module.spectral_loss(list(layers.values())), expected)
    torch.testing.assert_close(module.spectral_loss(layers["conv"]), alone[0])
    assert module.spectral_loss([layers["hidden"]]).dtype == torch.float32


@IMPLEMENTATIONS
def test_each_layer_has_its_basis_and_kappa(module: object) -> None:
    layers = {"a": normal(20, 5, 3), "b": normal(20, 12)}
    basis = {"b": normal(12, 13), "a": normal(15, 14)}
    kappa = {"b": 0.5, "a": torch.tensor(2.0).double()}
    expected = torch.stack(
        [
            module.spectral_loss(layers[name], basis=basis[name], kappa=kappa[name])
            for name in layers
        ]
    ).mean()
    for of_basis, of_kappa in [
        (basis, kappa),
        ([basis["a"], basis["b"]], [kappa["a"], kappa["b"]]),
        ((basis["a"], basis["b"]), kappa),
    ]:
        torch.testing.assert_close(
            module.spectral_loss(layers, basis=of_basis, kappa=of_kappa), expected
        )
    as_list = module.spectral_loss(
        list(layers.values()), basis=[basis["a"], None], kappa=[kappa["a"], None]
    )
    alone = module.spectral_loss(layers["a"], basis=basis["a"], kappa=kappa["a"])
    exact = module.spectral_loss(layers["b"])
    torch.testing.assert_close(as_list, torch.stack([alone, exact]).mean())


@IMPLEMENTATIONS
def test_a_layer_does_not_depend_on_others_of_its_size(module: object) -> None:
    layers = [normal(30, 16, seed=i).requires_grad_() for i in range(4)]
    alone = [torch.autograd.grad(module.spectral_loss(x) / 4, x)[0] for x in layers]
    together = torch.autograd.grad(module.spectral_loss(layers), layers)
    torch.testing.assert_close(together, tuple(alone))
    with torch.no_grad():
        layers[2][3, 5] = torch.nan
    loss = module.spectral_loss(layers)
    assert loss.isnan()
    gradients = torch.autograd.grad(loss, layers)
    assert [gradient.isfinite().all() for gradient in gradients] == [True, True, False, True]


@IMPLEMENTATIONS
@RESULT_DTYPES
@pytest.mark.parametrize("shape", [(12, 60), (13, 60), (60, 11), (60, 12)], ids=case_name)
def test_a_spectrum_needs_a_rank_after_the_anchor_that_can_be_above_zero(
    module: object, shape: tuple, dtype: torch.dtype
) -> None:
    x = normal(*shape).to(dtype)
    if min(shape[0] - 1, shape[1]) == 12:
        assert module.spectral_loss(x) > 0
    else:
        with pytest.raises(ValueError, match="at least 12 ranks that can be above 0"):
            module.spectral_loss(x)


@IMPLEMENTATIONS
def test_along_a_basis_two_samples_are_enough(module: object) -> None:
    assert module.spectral_loss(normal(2, 20), basis=normal(20, 12)) > 0


@IMPLEMENTATIONS
@pytest.mark.parametrize("shape", [(64, 20), (20, 64)], ids=case_name)
def test_a_variance_too_large_to_hold_is_not_taken_for_none(module: object, shape: tuple) -> None:
    signs = torch.ones(shape)
    signs[::2] = -1
    leaf = (1.5e20 * signs).requires_grad_()
    for x in (leaf, leaf.detach()):
        assert module.eigenspectrum(x)[0] == torch.inf
        assert not module.spectral_loss(x).isfinite()
    (gradient,) = torch.autograd.grad(module.spectral_loss(leaf), leaf)
    assert not gradient.isfinite().any()


@IMPLEMENTATIONS
@RESULT_DTYPES
@pytest.mark.parametrize("kappa", [None, 0.7])
def test_variance_that_is_rounding_has_no_gradient_along_a_basis(
    module: object, kappa: float | None, dtype: torch.dtype
) -> None:
    x, basis = normal(40, 14).to(dtype), torch.eye(14, dtype=dtype)
    x[:, 5] *= {torch.float32: 3e-4, torch.float64: 3e-7}[dtype]
    x.requires_grad_()
    loss = module.spectral_loss(x, basis=basis, kappa=kappa)
    plain, differentiable = (
        torch.autograd.grad(loss, x, retain_graph=True, create_graph=create_graph)[0]
        for create_graph in (False, True)
    )
    assert plain.any()
    assert not plain[:, 5].any()
    assert not differentiable[:, 5].any()
    torch.testing.assert_close(differentiable, plain)


# ---------------------------------------------------------------------- independence of rounding


@IMPLEMENTATIONS
@hard_dtypes
@pytest.mark.parametrize("mode", ["exact", "frozen"])
@SAMPLES
def test_the_order_of_units_and_samples_does_not_matter(
    module: object, name: str, mode: str, dtype: torch.dtype
) -> None:
    x = rounded(name, dtype)
    x = x[:, :70] if mode == "frozen" else x
    basis = eigenbasis(x) if mode == "frozen" else None
    generator = torch.Generator().manual_seed(1)
    samples, units = (torch.randperm(n, generator=generator) for n in x.shape)
    shuffled = x[samples][:, units]
    for anchor in (3, 11):
        losses = []
        for y, v in [(x, basis), (shuffled, None if basis is None else basis[units])]:
            leaf = y.clone().requires_grad_()
            loss = module.spectral_loss(leaf, anchor=anchor, basis=v)
            (gradient,) = torch.autograd.grad(loss, leaf)
            assert gradient.isfinite().all()
            losses += [loss.item(), module.spectral_loss(y, anchor=anchor, basis=v).item()]
        assert np.ptp(losses) < 1e-4 * max(1, losses[0])


@IMPLEMENTATIONS
@RESULT_DTYPES
def test_rank_deficiency_is_not_penalised(module: object, dtype: torch.dtype) -> None:
    x = HARD_SAMPLES["duplicated_units"]().to(dtype)
    spectrum = module.eigenspectrum(x)
    assert (spectrum > 0).sum() == 13
    expected = expected_penalty(expected_spectrum(x)[:13], width=24)[0]
    assert abs(module.spectral_loss(x).item() - expected) < 1e-4


# ----------------------------------------------------------------------------------- how it works


@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (400, 300)], ids=case_name)
def test_values_alone_compute_no_vectors(monkeypatch: pytest.MonkeyPatch, shape: tuple) -> None:
    x = normal(*shape).float()
    with no_eigenvectors(monkeypatch):
        selkern.spectral_loss([x, x[:, :20]])
    with no_eigenvectors(monkeypatch), torch.no_grad():
        assert not selkern.spectral_loss(x.requires_grad_()).requires_grad
    with no_eigenvectors(monkeypatch):
        basis = normal(shape[1], 15).float()
        selkern.spectral_loss(x.requires_grad_(), basis=basis).backward()
