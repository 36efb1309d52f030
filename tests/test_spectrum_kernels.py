"""The CUDA kernels of the spectrum family against float64, as test_kernels.py runs the others."""

from __future__ import annotations

import pytest
import torch
from cases import DTYPES, LAYOUTS, assert_same_bits, case_name, result_dtype
from spectra import (
    HARD_MATRICES,
    HARD_SPECTRA,
    RESULT_DTYPES,
    assert_eigenvalues,
    assert_eigenvectors,
    expected_eigenvalues,
    expected_penalty,
    normal,
    symmetric,
    with_eigenvalues,
)
from torch import Tensor

import selkern
from selkern import _crossover

SIZES = [1, 2, 3, 4, 5, 8, 15, 16, 17, 31, 32, 33, 34, 48, 63, 64, 65, 96, 97, 100, 127, 128, 129]
LARGEST = {torch.float32: 237, torch.float64: 165}
VALUE_TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-12}
HARD = HARD_MATRICES | HARD_SPECTRA
ROUNDING = {torch.float32: 2e-6, torch.float64: 1e-12}


def operators() -> object:
    """Those that the device fixture has chosen."""
    return selkern._pooling_autograd._ops


def check_solver(a: Tensor, device: torch.device) -> None:
    # Nothing above the diagonal is read.
    given = torch.where(torch.ones_like(a, dtype=torch.bool).tril(), a, torch.nan).to(device)
    expected = expected_eigenvalues(a)
    alone = operators().eigvalsh(given).cpu()
    values, vectors = (result.cpu() for result in operators().eigh(given))
    for each in (alone, values):
        assert_eigenvalues(each, expected)
        assert (each.diff() >= 0).all()
    assert_eigenvectors(a, values, vectors)


@RESULT_DTYPES
@pytest.mark.parametrize("size", [*SIZES, "largest"])
def test_eigensolver_at_every_size(
    size: int | str, dtype: torch.dtype, device: torch.device
) -> None:
    rows = LARGEST[dtype] if size == "largest" else size
    check_solver(symmetric(1 if rows > 100 else 3, rows).to(dtype), device)


@RESULT_DTYPES
@pytest.mark.parametrize("size", [3, 16, 32, 33, 64, 70, 128])
@pytest.mark.parametrize("name", HARD)
def test_hard_matrices(name: str, size: int, dtype: torch.dtype, device: torch.device) -> None:
    check_solver(HARD[name](size).to(dtype)[None], device)


@RESULT_DTYPES
@pytest.mark.parametrize("size", [1, 7, 16, 17, 32])
def test_small_matrices_have_the_same_eigenvalues_with_and_without_vectors(
    size: int, dtype: torch.dtype, device: torch.device
) -> None:
    a = torch.stack([symmetric(size), HARD_MATRICES["fewer_samples"](size)]).to(device, dtype)
    assert_same_bits([operators().eigvalsh(a)], [operators().eigh(a)[0]])


@RESULT_DTYPES
@pytest.mark.parametrize("size", [7, 16, 32, 64, 100, 128])
def test_vectors_are_orthonormal_to_the_last_digits(
    size: int, dtype: torch.dtype, device: torch.device
) -> None:
    names = ["indefinite", "power_law", "falling_with_both_signs", "duplicated_units"]
    a = torch.stack([HARD[name](size) for name in names]).to(device, dtype)
    vectors = operators().eigh(a)[1].cpu().double()
    excess = vectors.mT @ vectors - torch.eye(size, dtype=torch.float64)
    assert excess.abs().max() <= (2e-6 if dtype == torch.float32 else 2e-14)


def test_the_smallest_numbers_there_are(device: torch.device) -> None:
    # The neighbours of a cycle, whose eigenvalues are 2 cos(2 pi k / size) times the number.
    size, tiny = 24, 2.0**-149
    cycle = torch.eye(size, dtype=torch.float64).roll(1, 0)
    cycle += cycle.mT.clone()
    values, vectors = operators().eigh((tiny * cycle).float().to(device)[None])
    expected = torch.linalg.eigvalsh(cycle)
    assert (values[0].cpu().double() / tiny - expected).abs().max() <= 1
    gram = vectors[0].cpu().double().mT @ vectors[0].cpu().double()
    torch.testing.assert_close(gram, torch.eye(size).double(), rtol=0, atol=1e-4)


@RESULT_DTYPES
@pytest.mark.parametrize("size", [16, 32, 64, 128])
def test_entries_at_both_ends_of_the_range(
    size: int, dtype: torch.dtype, device: torch.device
) -> None:
    matrix = torch.eye(size, dtype=torch.float64)
    matrix += torch.diag(torch.full((size - 1,), 0.2, dtype=torch.float64), -1)
    ends = torch.finfo(dtype)
    for scale in (0.6 * ends.max, 0.3 * ends.max, ends.tiny, 0.17 * ends.tiny):
        a = (matrix * scale).to(device, dtype)[None]
        for values in (operators().eigvalsh(a), operators().eigh(a)[0]):
            assert_eigenvalues(
                (values.cpu().double() / scale).to(dtype), expected_eigenvalues(matrix[None])
            )


@RESULT_DTYPES
@pytest.mark.parametrize("size", [1, 7, 16, 33, 70])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_matrix_that_is_not_finite_leaves_the_others_alone(
    value: float, size: int, dtype: torch.dtype, device: torch.device
) -> None:
    a = symmetric(4, size).to(device, dtype)
    expected = [operators().eigvalsh(a), *operators().eigh(a)]
    a[2, size - 1, size // 3] = value
    for result, before in zip([operators().eigvalsh(a), *operators().eigh(a)], expected):
        assert result[2].isnan().all()
        assert_same_bits([result[[0, 1, 3]]], [before[[0, 1, 3]]])


@pytest.mark.parametrize("size", [6, 20, 40, 70])
def test_a_matrix_has_the_same_eigenvalues_anywhere_in_a_batch(
    size: int, device: torch.device
) -> None:
    a = symmetric(9, size).float().to(device)
    together = [operators().eigvalsh(a), *operators().eigh(a)]
    for i in range(len(a)):
        alone = a[i : i + 1].clone()
        assert_same_bits(
            [operators().eigvalsh(alone)[0], *(x[0] for x in operators().eigh(alone))],
            [x[i] for x in together],
        )


@pytest.mark.parametrize("batch", [0, 1, 2, 33, 150])
def test_batches_of_any_number_of_matrices(batch: int, device: torch.device) -> None:
    for size in (0, 1, 5):
        a = symmetric(batch, size).float()
        values, vectors = (result.cpu() for result in operators().eigh(a.to(device)))
        assert values.shape == (batch, size)
        assert vectors.shape == (batch, size, size)
        if values.numel() > 0:
            assert_eigenvalues(values, expected_eigenvalues(a))
            assert_eigenvectors(a, values, vectors)


def test_matrices_with_strides(device: torch.device) -> None:
    a = symmetric(3, 20).float().to(device)
    expected = operators().eigvalsh(a)
    for strided in (a.movedim(0, -1).contiguous().movedim(-1, 0), a.repeat(1, 1, 2)[:, :, :20]):
        assert_same_bits([operators().eigvalsh(strided)], [expected])


@RESULT_DTYPES
@pytest.mark.parametrize("name", ["eigvalsh", "eigh"])
def test_matrices_are_refused_from_the_size_on_that_goes_to_torch(
    name: str, dtype: torch.dtype, device: torch.device
) -> None:
    """The formula for a kernel's shared memory is there twice, in Python and in C++."""

    def zeros(size: int) -> Tensor:
        return torch.zeros(1, size, size, dtype=dtype, device=device)

    solver, with_vectors = getattr(operators(), name), name == "eigh"
    sizes = range(1, 258)
    taken = [size for size in sizes if _crossover.fits_own_kernel(zeros(size), with_vectors)]
    largest = len(taken)
    assert taken == list(range(1, largest + 1))
    with pytest.raises(ValueError, match=f"at most {largest} rows.*got {largest + 1}"):
        solver(zeros(largest + 1))


@RESULT_DTYPES
@pytest.mark.parametrize("size", [16, 24, 60, 128])
def test_eigenvalues_of_clusters(size: int, dtype: torch.dtype, device: torch.device) -> None:
    """Half of them equal, the others apart by as little as the dtype shows."""
    near = 1 + torch.arange(size // 4, dtype=torch.float64) * torch.finfo(dtype).eps
    values = torch.cat([torch.full((size // 2,), 0.5).double(), near, near - 2])
    check_solver(with_eigenvalues(*values).to(dtype)[None], device)


# ---------------------------------------------------------------------------------------- centering


def expected_centered(x: Tensor, scale: float) -> Tensor:
    x = x.double().cpu()
    x = x - x.mean(1, keepdim=True)
    return (x - x.mean(1, keepdim=True)) * scale


def check_center(x: Tensor, scale: float = 0.25) -> None:
    centered = operators().center(x, scale)
    assert centered.dtype == result_dtype(x.dtype)
    assert centered.is_contiguous()
    expected = expected_centered(x, scale)
    spread = expected.abs().amax(1, keepdim=True)
    tolerance = VALUE_TOLERANCE[centered.dtype] * spread + torch.finfo(centered.dtype).tiny
    assert ((centered.cpu().double() - expected).abs() <= tolerance).all()


CENTRED_SHAPES = [
    *[(1, 1, 1), (1, 2, 3), (3, 7, 40), (2, 300, 24), (2, 33, 37), (1, 2000, 3), (1, 600, 70)],
    *[(1, 3, 4300), (1, 3, 17_000), (1, 3, 40_001)],
]


@pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
@pytest.mark.parametrize("shape", CENTRED_SHAPES, ids=case_name)
def test_centering(shape: tuple, dtype: torch.dtype, device: torch.device) -> None:
    check_center(normal(*shape).to(device, dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "expanded_positions"])
def test_centering_of_every_layout(layout: str, dtype: torch.dtype, device: torch.device) -> None:
    for shape in [(3, 9, 17), (2, 5, 64)]:
        check_center(LAYOUTS[layout](normal(*shape).to(device, dtype)))


@pytest.mark.parametrize("shape", [(2, 500, 24), (1, 20_000, 2)], ids=case_name)
def test_centering_far_from_zero(shape: tuple, device: torch.device) -> None:
    """The mean of float32 rounded to float32 would leave errors of 4e-4."""
    for mean in (1e4, -3e3):
        check_center((normal(*shape) + mean * (1 + normal(shape[-1], seed=1).abs())).float())


@pytest.mark.parametrize("factor", [1e-15, 1e18])
def test_centering_of_tiny_and_huge_values(factor: float, device: torch.device) -> None:
    check_center((normal(2, 60, 24) * factor).float().to(device), 2**-8)


def test_centering_identical_samples_gives_zero(device: torch.device) -> None:
    x = (normal(24) * 1e4).float().expand(2, 77, 24).to(device)
    assert (operators().center(x, 1.0) == 0).all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
def test_centering_keeps_other_columns_finite(
    value: float, dtype: torch.dtype, device: torch.device
) -> None:
    x = normal(3, 40, 20).to(device, dtype)
    expected = operators().center(x, 1.0)
    x[1, 5, 7] = value
    centered = operators().center(x, 1.0)
    assert not centered[1, :, 7].isfinite().any()
    centered[1, :, 7] = expected[1, :, 7]
    assert_same_bits([centered], [expected])


# --------------------------------------------------------------------------------------- penalties


def laws(batch: int, dtype: torch.dtype, device: torch.device) -> list[tuple]:
    kappa = (0.5 + normal(batch).abs()).to(device, dtype)
    return [(None, 1.0), (None, 0.7), (kappa, 1.0), (kappa, 2.3)]


def check_penalty(
    spectrum: Tensor, penalty: Tensor, derivative: Tensor, law: tuple, anchor: int, width: int
) -> None:
    kappa, exponent = law
    tolerance = VALUE_TOLERANCE[spectrum.dtype]
    for i in range(len(spectrum)):
        value, slopes = expected_penalty(
            spectrum[i].cpu(),
            exponent=exponent,
            anchor=anchor,
            width=width,
            kappa=None if kappa is None else kappa[i].item(),
        )
        assert abs(penalty[i].item() - value) <= tolerance * max(1, value)
        expected = torch.from_numpy(slopes)
        error = (derivative[i].cpu().double() - expected).abs().max()
        assert error <= 10 * tolerance * expected.abs().max()


@RESULT_DTYPES
@pytest.mark.parametrize("shape", [(1, 2), (4, 13), (2, 300), (1, 4100)], ids=case_name)
def test_power_law_penalty(shape: tuple, dtype: torch.dtype, device: torch.device) -> None:
    ranks = torch.arange(1, shape[1] + 1)
    spectrum = normal(*shape).exp().sort(descending=True).values / ranks
    spectrum[0, -1] = 0
    spectrum = spectrum.to(device, dtype)
    for anchor in {1, shape[1] // 3 or 1, shape[1] - 1}:
        for law in laws(shape[0], dtype, device):
            result = operators().power_law_penalty(spectrum, *law, anchor, 2 * shape[1])
            check_penalty(spectrum, *result, law, anchor, 2 * shape[1])


def test_a_derivative_that_only_the_width_brings_into_range(device: torch.device) -> None:
    spectrum = torch.full((1, 40), 2e-37, device=device)
    penalty, derivative = operators().power_law_penalty(spectrum, None, 1.0, 3, 40)
    check_penalty(spectrum, penalty, derivative, (None, 1.0), anchor=3, width=40)


@RESULT_DTYPES
def test_a_law_through_zero_penalises_nothing(dtype: torch.dtype, device: torch.device) -> None:
    spectrum = torch.zeros(2, 20, dtype=dtype, device=device)
    spectrum[:, :3] = 1
    for result in operators().power_law_penalty(spectrum, None, 1.0, 5, 20):
        assert (result == 0).all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("rank", [0, 4, 299])
def test_a_spectrum_that_is_not_finite_has_no_penalty(
    rank: int, value: float, device: torch.device
) -> None:
    spectrum = normal(3, 300).exp().sort(descending=True).values.float().to(device)
    expected = operators().power_law_penalty(spectrum, None, 1.0, 11, 300)
    spectrum[1, rank] = value
    for result, before in zip(
        operators().power_law_penalty(spectrum, None, 1.0, 11, 300), expected
    ):
        assert result[1].isnan().all()
        assert_same_bits([result[[0, 2]]], [before[[0, 2]]])


# ------------------------------------------------------------------------------- spectra in a basis

PROJECTED_SHAPES = [
    *[(1, 1, 2), (2, 5, 3), (3, 70, 12), (2, 127, 33), (2, 128, 33), (1, 3000, 4), (2, 400, 300)],
    *[(1, 2, 8192), (1, 3, 9000)],
]


def expected_variances(projected: Tensor, scale: float) -> Tensor:
    variances = projected.cpu().double().square().sum(1) * scale
    is_rounding = variances <= ROUNDING[projected.dtype] * variances.amax(1, keepdim=True)
    return torch.where(is_rounding, 0.0, variances)


def check_basis_spectrum(projected: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    spectrum, order = operators().basis_spectrum(projected, scale)
    assert order.dtype == torch.int64
    variances = expected_variances(projected, scale)
    of_ranks = variances.gather(1, order.cpu())
    assert_eigenvalues(spectrum.cpu(), of_ranks)
    torch.testing.assert_close(
        spectrum.cpu().double(), of_ranks, rtol=VALUE_TOLERANCE[projected.dtype], atol=0
    )
    assert (spectrum.diff() <= 0).all()
    # A permutation, and equals in the order of their columns.
    assert torch.equal(
        order.sort().values, torch.arange(order.shape[1], device=order.device) + 0 * order
    )
    equal = spectrum[:, 1:] == spectrum[:, :-1]
    assert (order.diff()[equal] > 0).all()
    return spectrum, order


@RESULT_DTYPES
@pytest.mark.parametrize("shape", PROJECTED_SHAPES, ids=case_name)
def test_spectrum_in_a_basis(shape: tuple, dtype: torch.dtype, device: torch.device) -> None:
    projected = normal(*shape) * normal(shape[-1], seed=1)
    projected[:, :, shape[-1] // 2 :: 3] = 0
    projected[:, :, 0] = projected[:, :, -1]  # equals
    projected = projected.to(device, dtype)
    spectrum, order = check_basis_spectrum(projected, 0.37)
    ranks = shape[-1]
    for law in laws(shape[0], dtype, device):
        for anchor in {1, ranks // 5 or 1}:
            penalty, same_spectrum, same_order, derivative = operators().basis_penalty(
                projected, law[0], 0.37, law[1], anchor, ranks + 3
            )
            assert_same_bits([same_spectrum, same_order], [spectrum, order])
            check_penalty(spectrum, penalty, derivative.gather(1, order), law, anchor, ranks + 3)


def test_more_columns_than_shared_memory_sorts(device: torch.device) -> None:
    check_basis_spectrum((normal(1, 2, 40_000) * 3).float().to(device), 1.0)


@RESULT_DTYPES
def test_projections_with_strides(dtype: torch.dtype, device: torch.device) -> None:
    projected = normal(2, 150, 40).to(device, dtype)
    expected = operators().basis_spectrum(projected, 1.0)
    strided = projected.movedim(1, 0).contiguous().movedim(0, 1)
    assert_same_bits(operators().basis_spectrum(strided, 1.0), expected)
    # Off a boundary of 16 bytes.
    memory = torch.zeros(projected.numel() + 1, dtype=dtype, device=device)
    shifted = memory[1:].view_as(projected).copy_(projected)
    assert_same_bits(operators().basis_spectrum(shifted, 1.0), expected)


@pytest.mark.parametrize("samples", [20, 300])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_projection_that_is_not_finite_touches_its_matrix_alone(
    value: float, samples: int, device: torch.device
) -> None:
    projected = normal(3, samples, 15).float().to(device)
    expected = operators().basis_penalty(projected, None, 1.0, 1.0, 3, 15)
    projected[1, 3, 4] = value
    results = operators().basis_penalty(projected, None, 1.0, 1.0, 3, 15)
    penalty, spectrum, order, derivative = results
    assert penalty[1].isnan()
    assert derivative[1].isnan().all()
    assert not spectrum[1, 0].isfinite()
    assert order[1, 0] == 4
    for result, before in zip(results, expected):
        assert_same_bits([result[[0, 2]]], [before[[0, 2]]])


@RESULT_DTYPES
def test_sums_of_many_squares_lose_no_digits(dtype: torch.dtype, device: torch.device) -> None:
    projected = torch.full((1, 60_000, 3), 0.1, dtype=dtype, device=device)
    projected[:, ::7] = 1000.0
    check_basis_spectrum(projected, 1e-3)


def test_a_matrix_has_the_same_spectrum_anywhere_in_a_batch(device: torch.device) -> None:
    x = normal(5, 300, 24).float().to(device)
    centered, (spectrum, order) = operators().center(x, 1.0), operators().basis_spectrum(x, 1.0)
    for i in range(len(x)):
        alone = x[i : i + 1].clone()
        assert_same_bits([operators().center(alone, 1.0)[0]], [centered[i]])
        results = operators().basis_spectrum(alone, 1.0)
        assert_same_bits([result[0] for result in results], [spectrum[i], order[i]])


@pytest.mark.parametrize("shape", [(0, 5, 3), (2, 5, 0)], ids=case_name)
def test_nothing_to_do(shape: tuple, device: torch.device) -> None:
    x = torch.zeros(shape, device=device)
    assert operators().center(x, 1.0).shape == shape
    spectrum, order = operators().basis_spectrum(x, 1.0)
    assert spectrum.shape == order.shape == (shape[0], shape[2])


def test_equal_variances_keep_the_order_of_their_columns(device: torch.device) -> None:
    projected = torch.tensor([1.0, 3.0, 1.0, 3.0, 0.0, 1.0]).repeat(2, 5, 1).to(device)
    for module in (operators(), torch.ops.selkern):
        _, order = module.basis_spectrum(projected, 1.0)
        assert order.tolist() == [[1, 3, 0, 2, 5, 4]] * 2
