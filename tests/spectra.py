"""Hard matrices and activations, and what NumPy makes of them in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from cases import assert_within, result_dtype
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Array = NDArray[np.float64]

EIGENVALUE_TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-12}
# torch's float32 solver is less accurate without vectors.
LARGE_EIGENVALUE_TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
FAR_MEAN_TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
VECTOR_TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
EIGENVALUE_GRADIENT_TOLERANCE = {
    torch.float16: 2e-3,
    torch.bfloat16: 1e-2,
    torch.float32: 1e-5,
    torch.float64: 1e-11,
}
RESULT_DTYPES = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64], ids=["float32", "float64"]
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape) + 1000 * seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def orthogonal(size: int) -> Tensor:
    return torch.linalg.qr(normal(size, size))[0]


def reflected(x: Tensor) -> Tensor:
    """Mix all units by an orthogonal matrix, without forming it."""
    direction = normal(x.shape[-1])
    direction /= direction.norm()
    return x - 2 * (x @ direction)[..., None] * direction


def with_eigenvalues(*values: float) -> Tensor:
    vectors = orthogonal(len(values))
    matrix = (vectors * torch.tensor(values, dtype=torch.float64)) @ vectors.mT
    return (matrix + matrix.mT) / 2


def descending(*shape: int) -> Tensor:
    return normal(*shape).square().sort(dim=-1, descending=True).values


def symmetric(*shape: int) -> Tensor:
    matrix = normal(*shape, shape[-1])
    return matrix + matrix.mT


def descending_samples(samples: int, units: int, spectrum: Tensor) -> Tensor:
    """Samples [N, D] whose covariance has exactly the eigenvalues given, and a mean."""
    spread = normal(samples, len(spectrum))
    spread = torch.linalg.qr(spread - spread.mean(0))[0] * (samples - 1) ** 0.5
    directions = torch.linalg.qr(normal(units, len(spectrum), seed=1))[0]
    return spread * spectrum.sqrt() @ directions.mT + normal(units, seed=2)


# ----------------------------------------------------------------------------------- hard inputs


def _equal_to_machine_precision(size: int) -> Tensor:
    return 1 + torch.arange(size, dtype=torch.float64) * 2**-52


def _without(x: Tensor, *units: int) -> Tensor:
    x[:, list(units)] = 0
    return x


def _covariance_of(x: Tensor) -> Tensor:
    x = x - x.mean(0)
    return x.mT @ x / (len(x) - 1)


HARD_SAMPLES: dict[str, Callable[[], Tensor]] = {
    "zero": lambda: torch.zeros(40, 24, dtype=torch.float64),
    "identical_samples": lambda: normal(24).expand(40, 24),
    "rank_one": lambda: normal(40, 1) * normal(24),
    "identity": lambda: descending_samples(40, 24, torch.ones(24, dtype=torch.float64)),
    "equal_to_machine_precision": lambda: descending_samples(
        40, 24, _equal_to_machine_precision(24)
    ),
    "dead_units": lambda: _without(normal(40, 24), *range(1, 24, 2)),
    "one_live_unit": lambda: _without(normal(40, 24), *range(1, 24)),
    "duplicated_units": lambda: normal(40, 13).repeat(1, 2)[:, :24],
    "dependent_units": lambda: normal(40, 15) @ normal(15, 24, seed=1),
    "fewer_samples": lambda: normal(20, 60),
    "as_many_samples": lambda: normal(24, 24),
    "duplicated_samples": lambda: normal(13, 60).repeat(2, 1),
    "power_law": lambda: reflected(normal(128, 2000) / torch.arange(1, 2001).sqrt()),
    "tiny": lambda: normal(40, 24) * 1e-15,
    "huge": lambda: normal(40, 24) * 1e18,
    "tiny_fewer_samples": lambda: normal(20, 60) * 1e-15,
    "huge_fewer_samples": lambda: normal(20, 60) * 1e18,
    "far_mean": lambda: normal(200, 24) + 10_000,
    "far_mean_fewer_samples": lambda: normal(20, 60) + 10_000 * normal(60).sign(),
}
SAMPLES = pytest.mark.parametrize("name", HARD_SAMPLES)

HARD_MATRICES: dict[str, Callable[[int], Tensor]] = {
    "zero": lambda size: torch.zeros(size, size, dtype=torch.float64),
    "identity": lambda size: torch.eye(size, dtype=torch.float64),
    "ones": lambda size: torch.ones(size, size, dtype=torch.float64),
    "diagonal": lambda size: torch.diag(normal(size)),
    "tridiagonal": lambda size: symmetric(size).tril(1).triu(-1),
    "indefinite": symmetric,
    "rank_one": lambda size: torch.outer(normal(size), normal(size)),
    "negative": lambda size: -torch.outer(normal(size), normal(size)),
    "dead_units": lambda size: _covariance_of(_without(normal(40, size), *range(1, size, 2))),
    "duplicated_units": lambda size: _covariance_of(normal(40, size).repeat(1, 2)[:, -size:]),
    "dependent_units": lambda size: _covariance_of(normal(90, size // 2) @ normal(size // 2, size)),
    "fewer_samples": lambda size: _covariance_of(normal(5, size)),
    "power_law": lambda size: with_eigenvalues(*(1 / torch.arange(1, size + 1))),
    "equal_to_machine_precision": lambda size: with_eigenvalues(*_equal_to_machine_precision(size)),
    "pairs": lambda size: with_eigenvalues(*(torch.arange(size) // 2).double()),
    "one_coupling": lambda size: _with_coupling(torch.eye(size, dtype=torch.float64), 1e-7),
    "graded": lambda size: _graded(symmetric(size), 1e-20, 1.0),
    "graded_backwards": lambda size: _graded(symmetric(size), 1.0, 1e-20),
    "tiny": lambda size: symmetric(size) * 1e-20,
    "huge": lambda size: symmetric(size) * 1e20,
    "from_tiny_to_huge": lambda size: _graded(symmetric(size), 1e-20, 1e20),
    "wilkinson": lambda size: _wilkinson(size),
}


# For the CUDA kernels. The CPU's lose up to 3e-6 of float32 eigenvalues of 1 and -1.
HARD_SPECTRA: dict[str, Callable[[int], Tensor]] = {
    "exponential": lambda size: with_eigenvalues(*torch.exp(-torch.arange(size).double())),
    "falling_with_both_signs": lambda size: with_eigenvalues(
        *(torch.exp(-0.2 * torch.arange(size)) * _alternating(size))
    ),
    "opposite": lambda size: with_eigenvalues(*_alternating(size)),
    "opposite_pairs": lambda size: with_eigenvalues(
        *((torch.arange(size) // 2 + 1) * _alternating(size))
    ),
}


def _alternating(size: int) -> Tensor:
    return 1 - 2 * (torch.arange(size) % 2).double()


def _with_coupling(matrix: Tensor, coupling: float) -> Tensor:
    matrix[-1, 0] = matrix[0, -1] = coupling
    return matrix


def _graded(matrix: Tensor, first: float, last: float) -> Tensor:
    factors = torch.from_numpy(np.geomspace(first, last, len(matrix)) ** 0.5)
    return matrix * (factors * factors[:, None])


def _wilkinson(size: int) -> Tensor:
    """Tridiagonal, with pairs of eigenvalues that agree to machine precision."""
    diagonal = (torch.arange(size, dtype=torch.float64) - (size - 1) / 2).abs()
    beside = torch.ones(size - 1, dtype=torch.float64)
    return torch.diag(diagonal) + torch.diag(beside, 1) + torch.diag(beside, -1)


# ------------------------------------------------------------------------------- float64 by NumPy


def as_array(x: Tensor) -> Array:
    return x.detach().double().numpy()


def expected_eigenvalues(a: Tensor) -> Tensor:
    """Ascending eigenvalues of the symmetric matrices whose lower triangle `a` holds."""
    lower = np.tril(as_array(a))
    upper = np.swapaxes(np.tril(lower, -1), -1, -2)
    return torch.from_numpy(np.linalg.eigvalsh(lower + upper))


def singular_values(x: Tensor) -> tuple[Array, Array, Array]:
    samples = as_array(x)
    samples = samples - samples.mean(-2, keepdims=True)
    # Far from zero the first mean is rounded even in float64.
    return np.linalg.svd(samples - samples.mean(-2, keepdims=True), full_matrices=False)


def expected_spectrum(x: Tensor, correction: int = 1, basis: Tensor | None = None) -> Tensor:
    left, values, right = singular_values(x)
    if basis is not None:
        along = (left * values[..., None, :]) @ right @ as_array(basis)
        spectrum = -np.sort(-(along**2).sum(-2))
    else:
        spectrum = values**2
    return torch.from_numpy(spectrum / (x.shape[-2] - correction))


def expected_gradient(x: Tensor, slopes: Array, correction: int = 1) -> Tensor:
    """Gradient with respect to x of a function of the spectrum with derivatives `slopes`."""
    left, values, right = singular_values(x)
    gradient = (left * (2 / (x.shape[-2] - correction) * values * slopes)) @ right
    return torch.from_numpy(gradient)


def expected_penalty(
    spectrum: Tensor,
    *,
    exponent: float = 1.0,
    anchor: int = 11,
    width: int | None = None,
    kappa: float | None = None,
) -> tuple[float, Array]:
    """Penalty of one spectrum, and its derivatives, one rank after another."""
    values, exponent = as_array(spectrum), float(exponent)
    if kappa is None:
        kappa = values[anchor - 1] * anchor**exponent
    total, derivatives = 0.0, np.zeros_like(values)
    for n in range(anchor + 1, len(values) + 1):
        if kappa == 0 or values[n - 1] <= 0:
            continue
        expected = kappa * n**-exponent
        r = values[n - 1] / expected - 1
        total += r**2 + max(0.0, r)
        derivatives[n - 1] = (2 * r + (r > 0)) / expected
    width = len(values) if width is None else width
    return total / width, derivatives / width


# -------------------------------------------------------------------------------------- comparing


def assert_eigenvalues(
    actual: Tensor, expected: Tensor, tolerance: dict[torch.dtype, float] = EIGENVALUE_TOLERANCE
) -> None:
    """Compare to within a part of the largest."""
    largest = expected.abs().amax(-1, keepdim=True) if expected.shape[-1] else expected
    assert_within(actual, expected, tolerance[actual.dtype], largest.expand_as(expected))


def assert_eigenvectors(a: Tensor, values: Tensor, vectors: Tensor) -> None:
    """Check that the columns are orthonormal, and the residual against the norm."""
    tolerance = VECTOR_TOLERANCE[vectors.dtype]
    assert vectors.shape == a.shape
    values, vectors = values.double(), vectors.double()
    lower = a.double().tril()
    matrix = lower + lower.tril(-1).mT
    # Norms of entries up to 1e20 are safe in float64.
    norm = matrix.flatten(-2).norm(dim=-1)[..., None, None]
    identity = torch.eye(a.shape[-1], dtype=torch.float64)
    assert_within(vectors.mT @ vectors, identity.expand_as(a), tolerance, torch.ones(()))
    residual = matrix @ vectors - vectors * values.unsqueeze(-2)
    assert_within(residual, torch.zeros_like(residual), tolerance, norm.expand_as(residual))


def assert_gradient_of_eigenvalues(actual: Tensor, expected: Tensor) -> None:
    """Compare to within a part of the norm."""
    tolerance = EIGENVALUE_GRADIENT_TOLERANCE[actual.dtype]
    assert_within(actual, expected, tolerance, expected.norm().expand_as(expected))


def tolerance_for(name: str) -> dict[torch.dtype, float]:
    return FAR_MEAN_TOLERANCE if name.startswith("far_mean") else EIGENVALUE_TOLERANCE


def rounded(name: str, dtype: torch.dtype) -> Tensor:
    return HARD_SAMPLES[name]().to(dtype)


def eigenbasis(x: Tensor) -> Tensor:
    """Return all eigenvectors of the covariance, in the dtype of the results."""
    samples = x.double() - x.double().mean(0)
    _, vectors = np.linalg.eigh(as_array(samples.mT @ samples))
    return torch.from_numpy(vectors[:, ::-1].copy()).to(result_dtype(x.dtype))


# ------------------------------------------------------------------------------------- gradients


def value_and_gradient(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    leaf = x.detach().requires_grad_()
    value = function(leaf)
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), gradient


def with_gradients(function: Callable[[Tensor], Tensor], x: Tensor, slopes: Tensor) -> list[Tensor]:
    """Return the spectrum, and the gradient of its product with the slopes."""
    leaf = x.detach().requires_grad_()
    spectrum = function(leaf)
    (gradient,) = torch.autograd.grad(spectrum, leaf, slopes.to(spectrum))
    return [spectrum.detach(), gradient]


# ----------------------------------------------------------------------------- operators at work


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


@contextmanager
def no_eigenvectors(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail where an operator of ours, or torch's solver, is asked for eigenvectors."""

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("eigenvectors were computed")

    with monkeypatch.context() as patch:
        patch.setattr(torch.linalg, "eigh", refuse)
        with _Recorder() as recorder:
            yield
    assert "selkern.eigh.default" not in recorder.names


# ------------------------------------------------------ operators as functions of samples [9, 5]

BASIS = normal(5, 4)


def _descending(x: Tensor) -> Tensor:
    return x.square().sort(dim=-1, descending=True).values


# With kappa, so that the gradient is that of the value.
SPECTRUM_OPERATORS: dict[str, Callable[[object, Tensor], Tensor]] = {
    "covariance": lambda module, x: module.covariance(x),
    "eigenspectrum": lambda module, x: module.eigenspectrum(x),
    "eigenspectrum_of_few": lambda module, x: module.eigenspectrum(x.mT, correction=0),
    "frozen_eigenspectrum": lambda module, x: module.eigenspectrum(x, basis=BASIS.to(x)),
    "power_law_penalty": lambda module, x: module.power_law_penalty(
        _descending(x), anchor=2, kappa=0.8
    ),
    "spectral_loss": lambda module, x: module.spectral_loss(
        {"rows": x, "few": x.mT, "maps": x.mT.unflatten(1, (3, 3))},
        anchor=2,
        kappa=[0.8, 2.0, 1.3],
    ),
    "frozen_spectral_loss": lambda module, x: module.spectral_loss(
        [x, x.sin()], anchor=2, basis=[BASIS.to(x), None], kappa=[0.8, 0.1]
    ),
    "eigvalsh": lambda module, x: module.linalg.eigvalsh(x.mT @ x),
    "eigenvalues_of_eigh": lambda module, x: module.linalg.eigh(x.mT @ x).eigenvalues,
}
# And without, where it is another.
ANCHORED_OPERATORS: dict[str, Callable[[object, Tensor], Tensor]] = {
    "anchored_penalty": lambda module, x: module.power_law_penalty(_descending(x), anchor=2),
    "anchored_loss": lambda module, x: module.spectral_loss(
        [x, x.mT], anchor=1, exponent=1.5, basis=(BASIS.to(x), None)
    ),
    "anchored_exact_loss": lambda module, x: module.spectral_loss((x, x.mT), anchor=2),
}
ALL_OPERATORS = SPECTRUM_OPERATORS | ANCHORED_OPERATORS
