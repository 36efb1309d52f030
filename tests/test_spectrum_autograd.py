"""Derivatives of functions of eigenvalues, of first and second order, and function transforms."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import pytest
import torch
from cases import DTYPES, IMPLEMENTATIONS, TRANSFORMS, assert_same_bits, case_name
from spectra import (
    ALL_OPERATORS,
    HARD_MATRICES,
    HARD_SAMPLES,
    RESULT_DTYPES,
    SPECTRUM_OPERATORS,
    assert_gradient_of_eigenvalues,
    normal,
    rounded,
    symmetric,
    with_eigenvalues,
)
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, hessian, jacrev, jvp, vmap
from torch.utils.checkpoint import checkpoint

import selkern
from selkern import reference

Operator = Callable[[object, Tensor], Tensor]
every_operator = pytest.mark.parametrize("operator", ALL_OPERATORS.values(), ids=ALL_OPERATORS)


def samples(*batch: int) -> Tensor:
    return normal(*batch, 9, 5)


# ----------------------------------------------------------------------------- finite differences


@IMPLEMENTATIONS
@pytest.mark.parametrize("operator", SPECTRUM_OPERATORS.values(), ids=SPECTRUM_OPERATORS)
def test_first_and_second_derivatives(module: object, operator: Operator) -> None:
    x = samples().requires_grad_()
    assert gradcheck(partial(operator, module), x)
    assert gradgradcheck(partial(operator, module), x)


@IMPLEMENTATIONS
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_derivatives_of_the_eigenvalues_of_a_batch(module: object, size: int) -> None:
    a = normal(2, size, size).requires_grad_()

    def eigenvalues(a: Tensor) -> Tensor:
        return module.linalg.eigvalsh(a + a.mT)

    assert gradcheck(eigenvalues, a)
    assert gradgradcheck(eigenvalues, a)


@IMPLEMENTATIONS
def test_derivatives_of_rank_deficient_samples(module: object) -> None:
    x = normal(7, 3).requires_grad_()
    mix = normal(3, 6, seed=1)

    def spectrum(x: Tensor) -> Tensor:
        return module.eigenspectrum(x @ mix)

    assert (spectrum(x) == 0).sum() == 3
    assert gradcheck(spectrum, x)
    assert gradgradcheck(spectrum, x)


# ------------------------------------------------------------------ eigenvalues and their vectors


@IMPLEMENTATIONS
@RESULT_DTYPES
@pytest.mark.parametrize("size", [5, 24, 40, 300])
def test_the_gradient_where_eigenvalues_are_apart(
    module: object, size: int, dtype: torch.dtype
) -> None:
    a = with_eigenvalues(*torch.linspace(-1, 1, size).double()).to(dtype)
    _, vectors = torch.linalg.eigh(a.double())
    slopes = normal(size)
    expected = (vectors * slopes) @ vectors.mT
    leaf = a.requires_grad_()
    (gradient,) = torch.autograd.grad(module.linalg.eigvalsh(leaf), leaf, slopes.to(dtype))
    torch.testing.assert_close(gradient, gradient.mT)
    if size <= 40 or dtype == torch.float64:
        assert_gradient_of_eigenvalues(gradient, expected)


@IMPLEMENTATIONS
@RESULT_DTYPES
@pytest.mark.parametrize("name", HARD_MATRICES)
def test_gradients_of_hard_matrices(module: object, name: str, dtype: torch.dtype) -> None:
    a = torch.stack([HARD_MATRICES[name](20), symmetric(20)]).to(dtype).requires_grad_()
    values = module.linalg.eigvalsh(a)
    (of_sum,) = torch.autograd.grad(values.sum(), a, retain_graph=True)
    assert_gradient_of_eigenvalues(of_sum, torch.eye(20).double().expand(2, 20, 20))
    relative = values.detach() / values.detach().abs().amax(1, keepdim=True).clamp(min=1e-30)
    (of_squares,) = torch.autograd.grad(values, a, relative, create_graph=True)
    exact = a.detach().double()
    scale = torch.linalg.matrix_norm(exact, 2)[:, None, None].clamp(min=1e-30)
    for actual, expected in zip(of_squares.detach(), exact / scale, strict=True):
        assert_gradient_of_eigenvalues(actual, expected)
    (second,) = torch.autograd.grad(of_squares.square().sum(), a)
    assert second.isfinite().all()


# Of tiny samples the second derivatives are too large for float32.
@IMPLEMENTATIONS
@pytest.mark.parametrize("dtype", DTYPES[1:], ids=case_name)
@pytest.mark.parametrize("name", [name for name in HARD_SAMPLES if "tiny" not in name])
def test_second_derivatives_of_hard_samples_are_finite(
    module: object, name: str, dtype: torch.dtype
) -> None:
    x = rounded(name, dtype).requires_grad_()
    loss = module.spectral_loss(x, anchor=3)
    (first,) = torch.autograd.grad(loss, x, create_graph=True)
    scale = first.detach().abs().max().clamp(min=1e-30)
    (second,) = torch.autograd.grad(first, x, first.detach() / scale)
    assert second.dtype == dtype
    assert second.isfinite().all()


@IMPLEMENTATIONS
def test_second_derivatives_leave_out_pairs_that_are_too_close(module: object) -> None:
    a = torch.diag(torch.tensor([1.0, 1.0 + 1e-13, 3.0]).double()).requires_grad_()
    (gradient,) = torch.autograd.grad(module.linalg.eigvalsh(a).pow(3).sum(), a, create_graph=True)
    torch.testing.assert_close(gradient, 3 * a @ a)
    for i, j, expected in [(0, 1, 0.0), (0, 2, 12.0), (1, 2, 12.0)]:
        direction = torch.zeros(3, 3).double()
        direction[i, j] = direction[j, i] = 1
        (second,) = torch.autograd.grad(gradient, a, direction, retain_graph=True)
        torch.testing.assert_close(second, expected * direction)


@IMPLEMENTATIONS
def test_the_second_derivative_of_the_sum_of_squares(module: object) -> None:
    a = symmetric(3, 12).requires_grad_()
    direction = symmetric(3, 12)
    loss = module.linalg.eigvalsh(a).square().sum()
    (gradient,) = torch.autograd.grad(loss, a, create_graph=True)
    torch.testing.assert_close(gradient, 2 * a)
    (second,) = torch.autograd.grad(gradient, a, direction)
    torch.testing.assert_close(second, 2 * direction)


@IMPLEMENTATIONS
def test_a_gradient_of_the_vectors_is_refused(module: object) -> None:
    a = symmetric(5).requires_grad_()
    values, vectors = module.linalg.eigh(a)
    with pytest.raises(RuntimeError, match=r"eigenvectors.* torch\.linalg\.eigh"):
        torch.autograd.grad(values.sum() + vectors.square().sum(), a)
    with pytest.raises(RuntimeError, match="eigenvectors"):
        module.linalg.eigh(a).eigenvectors.sum().backward()
    with pytest.raises(RuntimeError, match="eigenvectors"):
        grad(lambda a: module.linalg.eigh(a)[1].sum())(a.detach())


@IMPLEMENTATIONS
def test_the_vectors_may_be_used_as_constants(module: object) -> None:
    a = symmetric(2, 6).requires_grad_()
    values, vectors = module.linalg.eigh(a)
    (expected,) = torch.autograd.grad(module.linalg.eigvalsh(a).pow(3).sum(), a)
    loss = (vectors.detach() * values.pow(2).unsqueeze(-2) @ vectors.detach().mT) * a
    (actual,) = torch.autograd.grad(values.pow(3).sum() + 0 * loss.sum(), a)
    torch.testing.assert_close(actual, expected)


# ------------------------------------------------------------------------------------- torch.func


def _loss(operator: Operator, module: object, x: Tensor) -> Tensor:
    return operator(module, x).sin().sum()


@every_operator
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_transforms_agree_with_the_reference(transform: Callable, operator: Operator) -> None:
    x = samples(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        actual = transform(partial(_loss, operator, selkern))(x)
    expected = transform(partial(_loss, operator, reference))(x)
    assert actual.abs().max() > 0
    torch.testing.assert_close(actual, expected, rtol=1e-8, atol=1e-10)


@IMPLEMENTATIONS
@every_operator
def test_transforms_agree_with_autograd(module: object, operator: Operator) -> None:
    x = samples(2).requires_grad_()
    expected = []
    for one in x:
        (first,) = torch.autograd.grad(_loss(operator, module, one), one, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), one)
        expected.append([first.detach(), second])
    first, second = zip(*expected, strict=True)
    function = partial(_loss, operator, module)
    x = x.detach()
    torch.testing.assert_close(vmap(grad(function))(x), torch.stack(first))
    torch.testing.assert_close(grad(lambda x: vmap(function)(x).sum())(x), torch.stack(first))
    torch.testing.assert_close(
        vmap(grad(lambda x: grad(function)(x).square().sum()))(x), torch.stack(second)
    )


def test_batches_of_bases_and_kappas() -> None:
    x, bases, kappas = samples(3), normal(3, 5, 4), torch.tensor([0.5, 1.0, 2.0]).double()

    def loss(x: Tensor, basis: Tensor, kappa: Tensor) -> Tensor:
        return selkern.spectral_loss(x, anchor=2, basis=basis, kappa=kappa)

    for in_dims in [(0, 0, 0), (None, 0, 0), (0, None, 0), (0, 0, None), (None, None, 0)]:
        arguments = [
            a if d == 0 else a[0] for a, d in zip((x, bases, kappas), in_dims, strict=True)
        ]
        actual = vmap(grad(loss), in_dims)(*arguments)
        for i in range(3):
            one = [a if d is None else a[i] for a, d in zip(arguments, in_dims, strict=True)]
            torch.testing.assert_close(actual[i], grad(loss)(*one))


@every_operator
def test_vmap_over_nothing_gives_nothing(operator: Operator) -> None:
    function = partial(operator, selkern)
    assert vmap(function)(samples(0)).shape == (0, *function(samples()).shape)


@every_operator
def test_forward_mode_is_refused(operator: Operator) -> None:
    x = samples()
    with pytest.raises(NotImplementedError):
        jvp(partial(operator, selkern), (x,), (torch.ones_like(x),))
    with torch.autograd.forward_ad.dual_level(), pytest.raises(NotImplementedError):
        operator(selkern, torch.autograd.forward_ad.make_dual(x, torch.ones_like(x)))
    with pytest.raises(NotImplementedError):
        hessian(partial(_loss, operator, selkern))(x)


# ----------------------------------------------------------------------------------- what arrives


@every_operator
def test_incoming_gradients_may_have_any_strides(operator: Operator) -> None:
    x = samples(2).requires_grad_()
    output = torch.stack([operator(selkern, one) for one in x])
    plain = normal(*output.shape)
    for incoming in (
        plain.movedim(0, -1).contiguous().movedim(-1, 0),
        plain.flatten()[0].expand_as(plain),
        torch.stack([plain, plain], -1)[..., 1],
    ):
        (actual,) = torch.autograd.grad(output, x, incoming, retain_graph=True)
        (expected,) = torch.autograd.grad(output, x, incoming.clone(), retain_graph=True)
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-14)
        assert actual.any()


@every_operator
def test_gradients_do_not_depend_on_recording_them(operator: Operator) -> None:
    x = samples().requires_grad_()
    (plain,) = torch.autograd.grad(_loss(operator, selkern, x), x)
    (recorded,) = torch.autograd.grad(_loss(operator, selkern, x), x, create_graph=True)
    torch.testing.assert_close(plain, recorded, rtol=1e-11, atol=1e-13)


@every_operator
@pytest.mark.parametrize("dtype", DTYPES[:3], ids=case_name)
def test_gradients_of_low_precision_keep_its_dtype(operator: Operator, dtype: torch.dtype) -> None:
    # Small enough that second derivatives stay in the range of float16.
    x = samples().to(dtype) / 4
    exact = x.double().requires_grad_()
    x.requires_grad_()
    output = operator(selkern, x)
    assert output.dtype == torch.float32
    (gradient,) = torch.autograd.grad(output.square().sum(), x, create_graph=True)
    (expected,) = torch.autograd.grad(operator(reference, exact).square().sum(), exact)
    assert gradient.dtype == dtype
    if x.dtype == torch.float32:
        torch.testing.assert_close(gradient.double(), expected, rtol=1e-3, atol=1e-3)
    (second,) = torch.autograd.grad(gradient.float().square().sum(), x)
    assert second.dtype == dtype
    assert second.isfinite().all()
    assert second.any()


@every_operator
def test_the_gradient_of_a_leaf_can_be_changed_in_place(operator: Operator) -> None:
    x = samples().requires_grad_()
    (gradient,) = torch.autograd.grad(operator(selkern, x).sum(), x)
    expected = gradient.clone() * 2
    assert torch.equal(gradient.mul_(2), expected)


@every_operator
def test_a_second_backward_gives_the_same(operator: Operator) -> None:
    x = samples().requires_grad_()
    loss = _loss(operator, selkern, x)
    first = torch.autograd.grad(loss, x, retain_graph=True)
    assert_same_bits(torch.autograd.grad(loss, x), first)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, x)


@every_operator
def test_checkpointing_changes_nothing(operator: Operator) -> None:
    x = samples().requires_grad_()

    def block(x: Tensor) -> Tensor:
        return operator(selkern, x.sin())

    (expected,) = torch.autograd.grad(block(x).square().sum(), x)
    for use_reentrant in (False, True):
        x.grad = None
        checkpoint(block, x, use_reentrant=use_reentrant).square().sum().backward()
        torch.testing.assert_close(x.grad, expected)


@every_operator
def test_jacrev_of_every_output(operator: Operator) -> None:
    x = samples()
    torch.testing.assert_close(
        jacrev(partial(operator, selkern))(x), jacrev(partial(operator, reference))(x)
    )


def test_what_is_rounding_has_no_gradient() -> None:
    x = normal(40, 12).detach()
    x[:, [2, 5]] = 0
    x[:, 7] = x[:, 1]
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(selkern.eigenspectrum(x).sqrt().sum(), x)
    assert gradient.isfinite().all()


def test_values_without_a_gradient_hold_no_rounding_either() -> None:
    x = torch.randn(1500, 1) @ torch.ones(1, 500)
    assert selkern.eigenspectrum(x).count_nonzero() == 1


def test_a_dropped_eigenvalue_has_no_gradient() -> None:
    x = samples_with_rounding().requires_grad_()
    for create_graph in (False, True):
        spectrum = selkern.eigenspectrum(x)
        assert spectrum[-1] == 0
        (gradient,) = torch.autograd.grad(spectrum[-1], x, create_graph=create_graph)
        assert not gradient.any()


def samples_with_rounding() -> Tensor:
    """Orthogonal units, of which the last has a variance just below what counts."""
    source = torch.Generator().manual_seed(0)
    x = torch.randn(60, 6, generator=source, dtype=torch.float64)
    directions = torch.linalg.qr(x - x.mean(0)).Q
    return (directions * torch.tensor([1, 1, 1, 1, 1, 1.2e-3])).float()


def test_samples_of_one_shape_and_different_dtypes_are_solved_apart() -> None:
    single = samples().float().requires_grad_()
    double = samples().requires_grad_()
    loss = selkern.spectral_loss([single, double], anchor=2)
    gradients = torch.autograd.grad(loss, (single, double))
    assert [gradient.dtype for gradient in gradients] == [torch.float32, torch.float64]
    torch.testing.assert_close(gradients[0].double(), gradients[1], rtol=1e-3, atol=1e-5)
