"""The penalty on a spectrum and its mean over layers, against the definition in NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from cases import (
    DTYPES,
    IMPLEMENTATIONS,
    VALUE_TOLERANCE,
    assert_gradient,
    assert_same_bits,
    assert_value,
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
)
from torch import Tensor

import selkern

all_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
hard_dtypes = pytest.mark.parametrize("dtype", DTYPES[1:], ids=case_name)


def descending(*shape: int) -> Tensor:
    return normal(*shape).square().sort(dim=-1, descending=True).values


def value_and_gradient(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    leaf = x.detach().requires_grad_()
    value = function(leaf)
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), gradient


def assert_penalty(module: object, spectrum: Tensor, **options: object) -> None:
    """Compare the penalty of every spectrum, and its derivatives, with the definition."""
    value, gradient = value_and_gradient(lambda s: module.power_law_penalty(s, **options), spectrum)
    assert value.dtype == result_dtype(spectrum.dtype)
    assert value.shape == spectrum.shape[:-1]
    assert gradient.dtype == spectrum.dtype
    ranks = spectrum.shape[-1]
    kappas = (
        torch.as_tensor(options.pop("kappa", torch.nan), dtype=torch.float64)
        .expand(value.shape)
        .flatten()
    )
    for i, row in enumerate(spectrum.reshape(-1, ranks)):
        kappa = None if kappas[i].isnan() else float(kappas[i])
        expected, derivatives = expected_penalty(row, kappa=kappa, **options)
        assert_value(value.flatten()[i], torch.tensor(expected, dtype=torch.float64))
        assert_gradient(gradient.reshape(-1, ranks)[i], torch.from_numpy(derivatives))


# ---------------------------------------------------------------------------------------- penalty


@IMPLEMENTATIONS
@all_dtypes
@pytest.mark.parametrize("shape", [(12,), (13,), (5, 40), (2, 3, 17), (300,), (3, 2000)])
def test_the_penalty_follows_its_definition(
    module: object, shape: tuple, dtype: torch.dtype
) -> None:
    assert_penalty(module, descending(*shape).to(dtype))


@IMPLEMENTATIONS
@RESULT_DTYPES
@pytest.mark.parametrize("exponent", [0, 0.5, 2.0, np.float32(1.5)])
@pytest.mark.parametrize("anchor", [1, 19, np.int64(11)])
def test_any_exponent_and_anchor(
    module: object, anchor: int, exponent: float, dtype: torch.dtype
) -> None:
    assert_penalty(module, descending(3, 20).to(dtype), exponent=exponent, anchor=anchor)


@IMPLEMENTATIONS
@RESULT_DTYPES
@pytest.mark.parametrize("width", [1, 20, 2000, np.int64(7)])
def test_any_width(module: object, width: int, dtype: torch.dtype) -> None:
    assert_penalty(module, descending(20).to(dtype), width=width)


@IMPLEMENTATIONS
@RESULT_DTYPES
def test_kappa_may_be_given(module: object, dtype: torch.dtype) -> None:
    spectrum = descending(2, 3, 20).to(dtype)
    for kappa in (1, 0.3, np.float64(2.5), torch.tensor(0.7), torch.tensor(2.0).double()):
        assert_penalty(module, spectrum, kappa=kappa)
    of_each = normal(2, 3).abs() + 0.1
    assert_penalty(module, spectrum, kappa=of_each.to(dtype))
    assert_penalty(module, spectrum, kappa=of_each.to(dtype).mT.contiguous().mT)
    assert_penalty(module, spectrum[0, 0], kappa=of_each[0, 0].to(dtype))


@IMPLEMENTATIONS
def test_an_example_worked_by_hand(module: object) -> None:
    spectrum = torch.tensor([9.0, 4.0, 4.0, 1.0, 0.0])
    value, gradient = value_and_gradient(lambda s: module.power_law_penalty(s, anchor=2), spectrum)
    # gamma is 8/3 at rank 3 and 2 at rank 4: r is 1/2 and -1/2.
    torch.testing.assert_close(value, torch.tensor((0.25 + 0.5 + 0.25) / 5))
    torch.testing.assert_close(gradient, torch.tensor([0.0, 0.0, 2 * 3 / 8, -0.5, 0.0]) / 5)


@IMPLEMENTATIONS
def test_a_spectrum_on_the_law_has_no_penalty_and_no_gradient(module: object) -> None:
    value, gradient = value_and_gradient(
        lambda s: module.power_law_penalty(s, anchor=1, exponent=0.0, kappa=2.0),
        torch.tensor([2.0, 2.0, 2.0]),
    )
    assert value == 0
    assert not gradient.any()
    law = 1 / torch.arange(1, 101).double()
    assert module.power_law_penalty(law) < 1e-14
    assert module.power_law_penalty(law, exponent=2.0) > 0.1


@IMPLEMENTATIONS
@RESULT_DTYPES
def test_kappa_is_held_constant(module: object, dtype: torch.dtype) -> None:
    spectrum = descending(4, 30).to(dtype)
    of_anchor = (spectrum[:, 10] * 11).requires_grad_()
    expected = value_and_gradient(lambda s: module.power_law_penalty(s, kappa=of_anchor), spectrum)
    actual = value_and_gradient(module.power_law_penalty, spectrum)
    torch.testing.assert_close(actual, expected)
    assert not actual[1][:, :11].any()
    leaf = spectrum.requires_grad_()
    loss = module.power_law_penalty(leaf, kappa=of_anchor).sum()
    assert torch.autograd.grad(loss, of_anchor, allow_unused=True) == (None,)


@IMPLEMENTATIONS
@all_dtypes
@pytest.mark.parametrize("ranks", [0, 1, 10])
def test_an_anchor_of_zero_gives_zero_and_no_gradient(
    module: object, ranks: int, dtype: torch.dtype
) -> None:
    spectrum = torch.zeros(2, 20, dtype=dtype)
    spectrum[0, :ranks] = 3.0
    spectrum[1] = 1.0
    value, gradient = value_and_gradient(module.power_law_penalty, spectrum)
    assert value[0] == 0
    assert value[1] > 0
    assert not gradient[0].any()
    assert gradient[1, 11:].all()
    value, gradient = value_and_gradient(
        lambda s: module.power_law_penalty(s, kappa=torch.tensor([1.0, 0.0])), spectrum
    )
    assert value.tolist() == [0, 0]
    assert not gradient.any()


@IMPLEMENTATIONS
@RESULT_DTYPES
def test_ranks_of_zero_are_left_out(module: object, dtype: torch.dtype) -> None:
    spectrum = descending(40).to(dtype)
    spectrum[25:] = 0
    assert_penalty(module, spectrum)
    shorter = module.power_law_penalty(spectrum[:25], width=40)
    torch.testing.assert_close(module.power_law_penalty(spectrum), shorter)
    spectrum[30:] = -1.0
    torch.testing.assert_close(module.power_law_penalty(spectrum), shorter)


@IMPLEMENTATIONS
@RESULT_DTYPES
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_penalty_does_not_depend_on_the_scale(
    module: object, scale: float, dtype: torch.dtype
) -> None:
    spectrum = descending(30).to(dtype)
    expected = value_and_gradient(module.power_law_penalty, spectrum)
    actual = value_and_gradient(module.power_law_penalty, spectrum * scale)
    torch.testing.assert_close(actual[0], expected[0])
    torch.testing.assert_close(actual[1] * scale, expected[1])


@IMPLEMENTATIONS
@RESULT_DTYPES
@pytest.mark.parametrize("rank", [0, 10, 11, 19])
@pytest.mark.parametrize("kappa", [None, 2.0])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_in_its_spectrum(
    module: object, value: float, kappa: float | None, rank: int, dtype: torch.dtype
) -> None:
    spectrum = descending(3, 20).to(dtype)
    clean = value_and_gradient(lambda s: module.power_law_penalty(s, kappa=kappa), spectrum)
    spectrum[1, rank] = value
    dirty = value_and_gradient(lambda s: module.power_law_penalty(s, kappa=kappa), spectrum)
    for actual, expected in zip(dirty, clean, strict=True):
        assert actual[1].isnan().all()
        assert torch.equal(actual[[0, 2]], expected[[0, 2]])


@IMPLEMENTATIONS
@all_dtypes
def test_a_batch_of_no_spectra(module: object, dtype: torch.dtype) -> None:
    spectrum = torch.zeros(0, 3, 20, dtype=dtype)
    value, gradient = value_and_gradient(module.power_law_penalty, spectrum)
    assert value.shape == (0, 3)
    assert value.dtype == result_dtype(dtype)
    assert gradient.shape == spectrum.shape


@IMPLEMENTATIONS
def test_spectra_of_any_strides(module: object) -> None:
    spectrum = descending(4, 20).float()
    expected = value_and_gradient(module.power_law_penalty, spectrum)
    for strided in (
        spectrum.mT.contiguous().mT,
        spectrum.repeat_interleave(2, 1)[:, ::2],
        spectrum[0].expand(4, 20),
    ):
        value, gradient = value_and_gradient(module.power_law_penalty, strided)
        rows = torch.zeros(4).long() if strided.stride(0) == 0 else torch.arange(4)
        torch.testing.assert_close(value, expected[0][rows])
        torch.testing.assert_close(gradient, expected[1][rows])


# ------------------------------------------------------------------------------------------- loss


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
    centred = exact - exact.mean(0)
    along = ((centred @ basis.double()).square().sum(0) / 29).sort(descending=True).values
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


@RESULT_DTYPES
def test_the_penalty_has_the_same_bits_for_any_number_of_threads(
    dtype: torch.dtype, restore_threads: None
) -> None:
    spectrum = descending(500, 70).to(dtype)
    torch.set_num_threads(1)
    expected = value_and_gradient(selkern.power_law_penalty, spectrum)
    for threads in (2, 3, 8):
        torch.set_num_threads(threads)
        assert_same_bits(value_and_gradient(selkern.power_law_penalty, spectrum), expected)
    torch.testing.assert_close(selkern.power_law_penalty(spectrum[7]), expected[0][7])
