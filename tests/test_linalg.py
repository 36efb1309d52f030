"""Eigenvalues and eigenvectors of symmetric matrices, against NumPy in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from cases import DTYPES, IMPLEMENTATIONS, assert_same_bits, case_name, result_dtype
from spectra import (
    EIGENVALUE_TOLERANCE,
    HARD_MATRICES,
    LARGE_EIGENVALUE_TOLERANCE,
    RESULT_DTYPES,
    assert_eigenvalues,
    assert_eigenvectors,
    expected_eigenvalues,
    no_eigenvectors,
    normal,
    symmetric,
)
from torch import Tensor

import selkern
from selkern import _crossover
from selkern._crossover import fits_own_kernel

SIZES = [*range(1, 71), 79, 96, 100, 127, 128, 129, 160, 161, 200, 231, 257, 300]
HARD_SIZES = [1, 2, 3, 16, 33, 64, 100]


def check_eigvalsh(module: object, a: Tensor) -> None:
    matrices = a.reshape(-1, *a.shape[-2:])
    is_ours = module is selkern and fits_own_kernel(matrices, with_vectors=False)
    tolerance = EIGENVALUE_TOLERANCE if is_ours else LARGE_EIGENVALUE_TOLERANCE
    values = module.linalg.eigvalsh(a)
    assert values.dtype == result_dtype(a.dtype)
    assert_eigenvalues(values, expected_eigenvalues(a), tolerance)
    assert (values.diff() >= 0).all()


def check_eigh(module: object, a: Tensor) -> None:
    values, vectors = module.linalg.eigh(a)
    assert values.dtype == vectors.dtype == result_dtype(a.dtype)
    assert_eigenvalues(values, expected_eigenvalues(a))
    assert (values.diff() >= 0).all()
    assert_eigenvectors(a, values, vectors)


# ---------------------------------------------------------------------------------------- values


@RESULT_DTYPES
@pytest.mark.parametrize("size", SIZES)
def test_every_size(dtype: torch.dtype, size: int) -> None:
    a = symmetric(9 if size < 300 else 1, size).to(dtype)
    check_eigvalsh(selkern, a)
    check_eigh(selkern, a)


@IMPLEMENTATIONS
@RESULT_DTYPES
@pytest.mark.parametrize("size", [1, 2, 8, 13, 25, 33, 65, 120, 300])
@pytest.mark.parametrize("batch", [1, 2, 4])
def test_small_batches(module: object, batch: int, dtype: torch.dtype, size: int) -> None:
    a = symmetric(batch, size).to(dtype)
    check_eigvalsh(module, a)
    check_eigh(module, a)


@IMPLEMENTATIONS
@RESULT_DTYPES
@pytest.mark.parametrize("name", HARD_MATRICES)
def test_hard_matrices(module: object, dtype: torch.dtype, name: str) -> None:
    for size in HARD_SIZES:
        a = HARD_MATRICES[name](size).to(dtype)
        check_eigvalsh(module, a)
        check_eigh(module, a)


@IMPLEMENTATIONS
@RESULT_DTYPES
def test_hard_matrices_side_by_side(module: object, dtype: torch.dtype) -> None:
    for size in (17, 48):
        a = torch.stack([matrix(size) for matrix in HARD_MATRICES.values()]).to(dtype)
        check_eigvalsh(module, a)
        check_eigh(module, a)


@RESULT_DTYPES
@pytest.mark.parametrize("size", [1, 2, 3, 8, 15, 16, 17, 33, 50])
def test_every_instruction_set(capability: str, dtype: torch.dtype, size: int) -> None:
    hard = [matrix(size) for matrix in HARD_MATRICES.values()]
    a = torch.cat([symmetric(12, size), torch.stack(hard)]).to(dtype)
    check_eigvalsh(selkern, a)
    check_eigh(selkern, a)


@RESULT_DTYPES
@pytest.mark.parametrize("batch", [1, 4])
def test_entries_at_both_ends_of_the_range(capability: str, batch: int, dtype: torch.dtype) -> None:
    ends = torch.finfo(dtype)
    beside = torch.full((8,), 0.2, dtype=torch.float64)
    matrix = torch.eye(9, dtype=torch.float64) + torch.diag(beside, 1) + torch.diag(beside, -1)
    for scale in (0.6 * ends.max, 0.3 * ends.max, ends.tiny, 0.17 * ends.tiny):
        a = (matrix * scale).to(dtype).expand(batch, 9, 9)
        expected = expected_eigenvalues(matrix).expand(batch, 9)
        for values in (selkern.linalg.eigvalsh(a), selkern.linalg.eigh(a).eigenvalues):
            assert_eigenvalues((values.double() / scale).to(dtype), expected)


@IMPLEMENTATIONS
def test_an_example_worked_by_hand(module: object) -> None:
    a = torch.tensor([[2.0, 9.0, 9.0], [1.0, 2.0, 9.0], [0.0, 0.0, -4.0]])
    values, vectors = module.linalg.eigh(a)
    torch.testing.assert_close(values, torch.tensor([-4.0, 1.0, 3.0]))
    torch.testing.assert_close(module.linalg.eigvalsh(a), values)
    expected = torch.tensor([[0.0, 0.5**0.5, 0.5**0.5], [0.0, 0.5**0.5, 0.5**0.5], [1.0, 0.0, 0.0]])
    torch.testing.assert_close(vectors.abs(), expected)


@IMPLEMENTATIONS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=case_name)
def test_low_precision_is_raised_to_float32(module: object, dtype: torch.dtype) -> None:
    a = symmetric(4, 20).to(dtype)
    assert torch.equal(module.linalg.eigvalsh(a), module.linalg.eigvalsh(a.float()))
    assert_same_bits(module.linalg.eigh(a), module.linalg.eigh(a.float()))


@IMPLEMENTATIONS
def test_the_result_is_a_named_tuple(module: object) -> None:
    result = module.linalg.eigh(symmetric(5))
    assert result.eigenvalues is result[0]
    assert result.eigenvectors is result[1]
    assert result._fields == ("eigenvalues", "eigenvectors")


@IMPLEMENTATIONS
@pytest.mark.parametrize(("gap", "is_pair"), [(1e-13, False), (1e-10, True)])
def test_second_derivatives_take_pairs_within_the_tolerance_for_equal(
    module: object, gap: float, is_pair: bool
) -> None:
    a = torch.diag(torch.tensor([1, 1 + gap, 3], dtype=torch.float64)).requires_grad_()
    squares = module.linalg.eigvalsh(a).square().sum()
    (gradient,) = torch.autograd.grad(squares, a, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum(), a)
    # The sum of squares is that of the entries, so that all second derivatives are 2.
    expected = torch.full((3, 3), 2.0, dtype=torch.float64)
    expected[[0, 1], [1, 0]] = 2.0 if is_pair else 0.0
    torch.testing.assert_close(second, expected, rtol=1e-4, atol=1e-4)


# -------------------------------------------------------------------------------- batches, strides


@IMPLEMENTATIONS
@pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
@pytest.mark.parametrize("shape", [(0, 3, 3), (2, 0, 4, 4), (0, 0), (3, 0, 0), (0, 300, 300)])
def test_empty_batches_and_matrices(module: object, shape: tuple, dtype: torch.dtype) -> None:
    a = torch.zeros(shape, dtype=dtype)
    values, vectors = module.linalg.eigh(a)
    assert values.shape == module.linalg.eigvalsh(a).shape == shape[:-1]
    assert vectors.shape == shape
    assert values.dtype == vectors.dtype == result_dtype(dtype)


@IMPLEMENTATIONS
@RESULT_DTYPES
@pytest.mark.parametrize("shape", [(1, 7), (2, 3, 7), (257, 5), (1, 1, 2, 20), (16, 16), (33, 1)])
def test_any_batch_shape(module: object, shape: tuple, dtype: torch.dtype) -> None:
    a = symmetric(*shape).to(dtype)
    check_eigvalsh(module, a)
    check_eigh(module, a)


STRIDES: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda a: a.mT.contiguous().mT,
    "batch_last": lambda a: a.movedim(0, -1).contiguous().movedim(-1, 0),
    "every_second": lambda a: torch.stack([a, torch.full_like(a, torch.nan)], -1).flatten(-2)[
        ..., ::2
    ],
    "inside_a_larger": lambda a: torch.nn.functional.pad(a, (1, 2, 3, 1), value=torch.nan)[
        :, 3:-1, 1:-2
    ],
    "expanded": lambda a: a[:1].expand_as(a),
}


@IMPLEMENTATIONS
@pytest.mark.parametrize("stride", STRIDES)
def test_any_strides(module: object, stride: str) -> None:
    a = STRIDES[stride](symmetric(5, 11).float())
    expected = a.contiguous().clone()
    assert torch.equal(module.linalg.eigvalsh(a), module.linalg.eigvalsh(expected))
    assert_same_bits(module.linalg.eigh(a), module.linalg.eigh(expected))


@IMPLEMENTATIONS
@RESULT_DTYPES
@pytest.mark.parametrize("size", [2, 9, 40, 300])
def test_only_the_lower_triangle_is_read(module: object, size: int, dtype: torch.dtype) -> None:
    a = symmetric(2, size).to(dtype)
    above = torch.ones(size, size, dtype=torch.bool).triu(1)
    for value in (0.0, 7.0, torch.nan, torch.inf):
        changed = a.masked_fill(above, value)
        assert torch.equal(module.linalg.eigvalsh(changed), module.linalg.eigvalsh(a))
        assert_same_bits(module.linalg.eigh(changed), module.linalg.eigh(a))


@IMPLEMENTATIONS
@RESULT_DTYPES
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("size", [1, 2, 3, 12, 33, 100, 300])
def test_what_is_not_finite_stays_in_its_matrix(
    module: object, size: int, value: float, dtype: torch.dtype
) -> None:
    a = symmetric(5, size).to(dtype)
    kept = torch.tensor([0, 2, 4])
    expected = module.linalg.eigvalsh(a)[kept]
    expected_pair = [x[kept] for x in module.linalg.eigh(a)]
    a[1, size - 1, 0] = value
    a[3, size // 2, size // 2] = value
    values = module.linalg.eigvalsh(a)
    pair = module.linalg.eigh(a)
    for x in (values, *pair):
        assert x[[1, 3]].isnan().all()
    assert torch.equal(values[kept], expected)
    assert_same_bits([x[kept] for x in pair], expected_pair)


# ------------------------------------------------------------------------------------ determinism


@RESULT_DTYPES
@pytest.mark.parametrize("size", [3, 16, 33, 90])
class TestSameBits:
    def test_with_any_number_of_threads(
        self, size: int, dtype: torch.dtype, restore_threads: None
    ) -> None:
        a = symmetric(37, size).to(dtype)
        torch.set_num_threads(1)
        expected = [selkern.linalg.eigvalsh(a), *selkern.linalg.eigh(a)]
        for threads in (2, 3, 8):
            torch.set_num_threads(threads)
            assert_same_bits([selkern.linalg.eigvalsh(a), *selkern.linalg.eigh(a)], expected)

    def test_at_any_place_in_the_batch(self, size: int, dtype: torch.dtype) -> None:
        a = torch.cat([symmetric(35, size), torch.eye(size, dtype=torch.float64)[None]]).to(dtype)
        values = selkern.linalg.eigvalsh(a)
        pair = selkern.linalg.eigh(a)
        order = torch.randperm(36, generator=torch.Generator().manual_seed(0))
        assert torch.equal(selkern.linalg.eigvalsh(a[order]), values[order])
        assert_same_bits(selkern.linalg.eigh(a[order]), [x[order] for x in pair])
        for part in (slice(0, 1), slice(5, 22), slice(33, 36)):
            raw = torch.ops.selkern.eigvalsh(a[part]), *torch.ops.selkern.eigh(a[part])
            assert_same_bits(raw, [x[part] for x in (values, *pair)])


@RESULT_DTYPES
def test_the_cuda_kernel_is_asked_for_what_fits_a_block(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    def largest(kilobytes: int) -> int:
        monkeypatch.setattr(_crossover, "shared_memory", lambda device: 1024 * kilobytes)
        sizes = [*range(1, 300), 1000]
        return max(
            size
            for size in sizes
            if _crossover.fits_own_kernel(torch.empty(1, size, size, dtype=dtype), False)
        )

    assert largest(227) == {torch.float32: 237, torch.float64: 165}[dtype]
    # However much memory there is, a row needs a thread.
    assert largest(10_000) == 256


@pytest.mark.parametrize("size", [5, 300])
def test_values_alone_compute_no_vectors(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    a = symmetric(2, size).float()
    with no_eigenvectors(monkeypatch):
        selkern.linalg.eigvalsh(a)
    with no_eigenvectors(monkeypatch), torch.no_grad():
        selkern.linalg.eigvalsh(a.requires_grad_())
    with no_eigenvectors(monkeypatch), torch.inference_mode():
        selkern.linalg.eigvalsh(a.detach())


# --------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("name", ["eigvalsh", "eigh"])
class TestRefusals:
    def test_of_what_is_no_tensor(self, name: str) -> None:
        with pytest.raises(TypeError, match=r"a must be a torch\.Tensor, got list"):
            getattr(selkern.linalg, name)([[1.0]])

    @pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64], ids=case_name)
    def test_of_dtypes(self, name: str, dtype: torch.dtype) -> None:
        with pytest.raises(TypeError, match=f"a must be float16, .*, got {case_name(dtype)}"):
            getattr(selkern.linalg, name)(torch.eye(3).to(dtype))

    def test_of_sparse_matrices(self, name: str) -> None:
        with pytest.raises(TypeError, match="a must be a dense"):
            getattr(selkern.linalg, name)(torch.eye(3).to_sparse())

    @pytest.mark.parametrize("shape", [(), (3,), (3, 4), (2, 4, 3), (0, 1)])
    def test_of_shapes(self, name: str, shape: tuple) -> None:
        with pytest.raises(ValueError, match=r"a must hold square matrices, .* got shape"):
            getattr(selkern.linalg, name)(torch.zeros(shape))


def test_rounding_of_many_rotations_leaves_vectors_of_length_one() -> None:
    x = torch.randn(16, 128, 64)
    _, vectors = torch.ops.selkern.eigh(x.mT @ x / 128)
    lengths = vectors.double().square().sum(-2)
    torch.testing.assert_close(lengths, torch.ones_like(lengths), rtol=0, atol=3e-7)


@RESULT_DTYPES
@pytest.mark.parametrize("size", [1, 5, 31, 33, 64, 100])
def test_rayleigh_quotients(dtype: torch.dtype, size: int, capability: str) -> None:
    a, vectors = symmetric(3, size).to(dtype), normal(3, size, size, seed=1).to(dtype)
    quotients = torch.ops.selkern.rayleigh_quotients(a, vectors)
    a, vectors = a.double(), vectors.double()
    expected = (vectors * (a @ vectors)).sum(1) / vectors.square().sum(1)
    tolerance = (2e-6 if dtype == torch.float32 else 1e-12) * torch.linalg.eigvalsh(a).abs().amax(1)
    assert ((quotients - expected).abs() <= tolerance.unsqueeze(1)).all()


def test_rayleigh_quotients_of_other_vectors_are_refused() -> None:
    a = torch.eye(3)[None]
    for vectors in (a[:, :2], a.double(), a[0]):
        with pytest.raises(ValueError, match="vectors must be like a"):
            torch.ops.selkern.rayleigh_quotients(a, vectors)
    assert torch.ops.selkern.rayleigh_quotients(a[:0], a[:0]).shape == (0, 3)


@pytest.mark.parametrize("size", [129, 200, 500])
def test_large_matrices_whose_rounding_has_a_direction(size: int) -> None:
    for a in (torch.eye(size) - 1 / size, torch.full((size, size), 1.37)):
        given = torch.where(torch.ones_like(a, dtype=torch.bool).tril(), a, torch.nan)
        expected = torch.linalg.eigvalsh(a.double())
        values = selkern.linalg.eigh(given).eigenvalues
        assert ((values - expected).abs() <= 2e-6 * expected.abs().max()).all()
        assert (values.diff() >= 0).all()
