"""The distance of a spectrum from a power law, against the definition in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import (
    DTYPES,
    IMPLEMENTATIONS,
    assert_gradient,
    assert_same_bits,
    assert_value,
    case_name,
    result_dtype,
)
from spectra import RESULT_DTYPES, descending, expected_penalty, normal, value_and_gradient
from torch import Tensor

import selkern

all_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=case_name)


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


@IMPLEMENTATIONS
@RESULT_DTYPES
@pytest.mark.parametrize(
    ("kappa", "counts"),
    [
        (torch.nan, None),
        (torch.inf, None),
        (-torch.inf, None),
        (-1.0, False),
        (0.0, False),
        (1e-3, True),
    ],
)
def test_a_kappa_that_is_not_positive_or_not_finite(
    module: object, kappa: float, counts: bool | None, dtype: torch.dtype
) -> None:
    spectrum = descending(2, 20).to(dtype).requires_grad_()
    penalty = module.power_law_penalty(spectrum, kappa=torch.tensor([kappa, 2.0]))
    for create_graph in (False, True):
        (gradient,) = torch.autograd.grad(
            penalty.sum(), spectrum, retain_graph=True, create_graph=create_graph
        )
        if counts is None:
            assert penalty[0].isnan()
            assert gradient[0].isnan().all()
        else:
            assert (penalty[0] > 0) == counts
            assert gradient[0].any() == counts
        assert penalty[1] > 0
        assert gradient[1].isfinite().all()


@IMPLEMENTATIONS
def test_a_negative_anchor_counts_nothing(module: object) -> None:
    spectrum = torch.ones(20)
    spectrum[10] = -1
    value, gradient = value_and_gradient(module.power_law_penalty, spectrum)
    assert value == 0
    assert not gradient.any()


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
