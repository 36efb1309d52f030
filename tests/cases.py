"""Inputs, tolerances and float64 references shared by the tests."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import grad, jacrev, vmap

import selkern
from selkern import reference

IMPLEMENTATIONS = pytest.mark.parametrize("module", [selkern, reference], ids=["fused", "plain"])
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]

VALUE_TOLERANCE = {
    torch.float16: 2e-6,
    torch.bfloat16: 2e-6,
    torch.float32: 2e-6,
    torch.float64: 1e-12,
}
GRADIENT_TOLERANCE = {
    torch.float16: 2e-3,
    torch.bfloat16: 1e-2,
    torch.float32: 1e-5,
    torch.float64: 1e-11,
}
FLOAT16_UNDERFLOW = 6e-8


def result_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


# ---------------------------------------------------------------------------------------- layouts


def _units_last(x: Tensor) -> Tensor:
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def _samples_last(x: Tensor) -> Tensor:
    return x.movedim(0, -1).contiguous().movedim(-1, 0)


def _last_axes_swapped(x: Tensor) -> Tensor:
    return x.transpose(-1, -2).contiguous().transpose(-1, -2)


def _every_second(x: Tensor, axis: int) -> Tensor:
    """Place x between NaNs, so that reading a neighbour shows."""
    return torch.stack([x, torch.full_like(x, torch.nan)], axis + 1).flatten(axis, axis + 1)[
        (slice(None),) * axis + (slice(None, None, 2),)
    ]


def _without_first(x: Tensor, axis: int) -> Tensor:
    padding = torch.full_like(x.narrow(axis, 0, min(1, x.shape[axis])), torch.nan)
    return torch.cat([padding, x], axis).narrow(axis, padding.shape[axis], x.shape[axis])


def _expanded(x: Tensor, axes: Sequence[int]) -> Tensor:
    for axis in axes:
        x = x.narrow(axis, 0, 1)
    return x


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x.contiguous(),
    "units_last": _units_last,
    "samples_last": _samples_last,
    "last_axes_swapped": _last_axes_swapped,
    "every_second_sample": lambda x: _every_second(x, 0),
    "every_second_unit": lambda x: _every_second(x, 1),
    "every_second_position": lambda x: _every_second(x, x.ndim - 1),
    "without_first_sample": lambda x: _without_first(x, 0),
    "without_first_unit": lambda x: _without_first(x, 1),
    "without_first_position": lambda x: _without_first(x, x.ndim - 1),
    "units_last_without_first_unit": lambda x: _units_last_sliced(x),
    "expanded_samples": lambda x: _expanded(x, [0]).expand_as(x),
    "expanded_units": lambda x: _expanded(x, [1]).expand_as(x),
    "expanded_positions": lambda x: _expanded(x, range(2, x.ndim)).expand_as(x),
    "expanded": lambda x: _expanded(x, range(x.ndim)).expand_as(x),
}


def _units_last_sliced(x: Tensor) -> Tensor:
    padded = torch.cat([torch.full_like(x[:, :1], torch.nan), x], 1)
    return _units_last(padded)[:, 1:]


_ROW_LAYOUTS = [
    "contiguous",
    "samples_last",
    "every_second_sample",
    "every_second_unit",
    "without_first_unit",
    "expanded_samples",
    "expanded_units",
]

# Shape and layout of every input: all layouts at one shape, all shapes at two layouts.
ROWS = [((5, 3), layout) for layout in _ROW_LAYOUTS] + [
    (shape, "contiguous") for shape in [(1, 1), (0, 3), (9, 1), (1, 19), (33, 70)]
]
MAPS = (
    [((4, 3, 7, 7), layout) for layout in LAYOUTS]
    + [
        (shape, layout)
        for shape in [
            (1, 1, 1, 1),
            (0, 3, 4, 4),
            (3, 5, 1, 1),
            (2, 17, 3, 5),
            (2, 1, 5, 9),
            (3, 33, 1, 2),
            (2, 70, 8, 8),
            (2, 3, 33, 37),
            (2, 3, 7),
            (3, 18, 1),
            (2, 3, 2, 3, 5),
            (1, 16, 3, 1, 4),
        ]
        for layout in ("contiguous", "units_last")
    ]
    + [((2, 3, 2, 4, 5), layout) for layout in ("samples_last", "last_axes_swapped")]
)
POSITIONLESS = [(2, 3, 0), (2, 3, 0, 4), (2, 3, 4, 0), (2, 3, 2, 0, 4), (0, 3, 0, 4)]


def case_name(case: object) -> str | None:
    if isinstance(case, tuple) and len(case) == 2 and isinstance(case[0], tuple):
        return f"{'x'.join(map(str, case[0]))}-{case[1]}"
    if isinstance(case, tuple):
        return "x".join(map(str, case))
    if isinstance(case, torch.dtype):
        return str(case).removeprefix("torch.")
    return None


def normal(
    shape: Sequence[int],
    dtype: torch.dtype,
    layout: str = "contiguous",
    device: torch.device | str = "cpu",
) -> Tensor:
    """Signed activations."""
    generator = torch.Generator().manual_seed(len(shape) + sum(shape))
    x = torch.randn(*shape, dtype=torch.float64, generator=generator)
    return LAYOUTS[layout](x.to(device, dtype))


def uniform(
    shape: Sequence[int],
    dtype: torch.dtype,
    layout: str = "contiguous",
    device: torch.device | str = "cpu",
) -> Tensor:
    """Non-negative activations."""
    generator = torch.Generator().manual_seed(len(shape) + sum(shape))
    x = torch.rand(*shape, dtype=torch.float64, generator=generator)
    return LAYOUTS[layout](x.to(device, dtype))


def zeros_without_memory(*shape: int) -> Tensor:
    """Zeros of a float16 tensor of any size: pages that nobody writes to take no memory."""
    return torch.from_numpy(np.zeros(shape, dtype=np.float16))


# ----------------------------------------------------------------------------------------- labels


def _random_labels(samples: int, num_classes: int) -> Tensor:
    generator = torch.Generator().manual_seed(samples + num_classes)
    return torch.randint(num_classes, (samples,), generator=generator)


def _partly_ignored(samples: int, num_classes: int) -> Tensor:
    labels = _random_labels(samples, num_classes)
    labels[::3] = -100
    return labels


def _strided(samples: int, num_classes: int) -> Tensor:
    labels = _random_labels(samples, num_classes)
    return torch.stack([labels, torch.full_like(labels, 10**6)], 1)[:, 0]


LABELS: dict[str, Callable[[int, int], Tensor]] = {
    "random": _random_labels,
    "in_turn": lambda samples, num_classes: torch.arange(samples) % num_classes,
    "one_class": lambda samples, num_classes: torch.full((samples,), num_classes - 1),
    "odd_classes": lambda samples, num_classes: _random_labels(samples, num_classes // 2) * 2 + 1,
    "partly_ignored": _partly_ignored,
    "all_ignored": lambda samples, num_classes: torch.full((samples,), -100),
    "int32": lambda samples, num_classes: _partly_ignored(samples, num_classes).int(),
    "strided": _strided,
    "strided_int32": lambda samples, num_classes: _strided(samples, num_classes).int()[:],
    "expanded": lambda samples, num_classes: torch.tensor([num_classes - 1]).expand(samples),
}


NUM_CLASSES = 4
# Class 0 is absent, class 3 is held by one sample, and some take no part.
SPARSE_LABELS = torch.tensor([2, 1, -100, 2, 1, 3, -100, 1])


# -------------------------------------------------------------------------------------- comparing


def assert_within(actual: Tensor, expected: Tensor, tolerance: float, scale: Tensor) -> None:
    """Compare with a float64 reference; what is not finite must be the same."""
    assert actual.shape == expected.shape
    finite = expected.isfinite()
    assert torch.equal(actual.isfinite(), finite)
    torch.testing.assert_close(
        actual[~finite], expected[~finite].to(actual.dtype), equal_nan=True, rtol=0, atol=0
    )
    excess = (actual.double() - expected).abs() - tolerance * scale
    worst = torch.where(finite, excess, 0.0).max().item() if excess.numel() else 0.0
    assert worst <= 0, f"off by {worst:.3g} more than {tolerance:.3g} of the scale"


def assert_value(actual: Tensor, expected: Tensor, scale: Tensor | None = None) -> None:
    if scale is None:
        scale = expected.abs().clamp(min=1.0)
    assert_within(actual, expected, VALUE_TOLERANCE[actual.dtype], scale)


def assert_gradient(actual: Tensor, expected: Tensor) -> None:
    tolerance = GRADIENT_TOLERANCE[actual.dtype]
    largest = expected[expected.isfinite()].abs().amax() if expected.numel() else 0.0
    # One part in the gradient's own size, or in a hundredth of the largest one.
    scale = expected.abs().nan_to_num(posinf=0.0).clamp(min=0.01 * float(largest))
    if actual.dtype == torch.float16:
        scale = scale + FLOAT16_UNDERFLOW / tolerance
    assert_within(actual, expected, tolerance, scale)


def cotangent_for(output: Tensor, seed: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(output.shape, dtype=torch.float64, generator=generator).to(output)


def assert_matches_reference(
    name: str,
    x: Tensor,
    *args: object,
    value_scale: Tensor | None = None,
    **kwargs: object,
) -> None:
    """Compare an operator's results and gradient with float64 on the same rounded input."""
    leaf = x.detach().requires_grad_()
    exact = x.detach().double().requires_grad_()
    outputs = _as_tuple(getattr(selkern, name)(leaf, *args, **kwargs))
    expected = _as_tuple(getattr(reference, name)(exact, *args, **kwargs))
    assert len(outputs) == len(expected)
    for position, (output, value) in enumerate(zip(outputs, expected, strict=True)):
        if not value.is_floating_point():
            assert output.dtype == value.dtype
            assert torch.equal(output, value)
        elif (name, position) == ("relu_with_mean", 0):
            assert output.dtype == x.dtype
            assert torch.equal(output.double(), value)
        else:
            assert output.dtype == result_dtype(x.dtype)
            assert_value(output, value.detach(), value_scale)

    outputs = tuple(output for output in outputs if output.is_floating_point())
    expected = tuple(value for value in expected if value.is_floating_point())
    cotangents = [cotangent_for(output) for output in outputs]
    (gradient,) = torch.autograd.grad(outputs, leaf, cotangents)
    (exact_gradient,) = torch.autograd.grad(expected, exact, [c.double() for c in cotangents])
    assert gradient.dtype == x.dtype
    assert_gradient(gradient, exact_gradient)


def all_results(x: Tensor) -> list[Tensor]:
    """Return every output and every gradient of every operator."""
    labels = LABELS["partly_ignored"](x.shape[0], 23).to(x.device)
    leaf = x.detach().requires_grad_()
    means, counts = selkern.class_means(leaf, labels, 23)
    outputs = [
        selkern.spatial_mean(leaf),
        *selkern.relu_with_mean(leaf),
        means,
        selkern.selectivity_index(leaf, labels, 23),
        selkern.selectivity_index_from_means(means, counts),
        selkern.mean_selectivity([leaf, leaf[:, :5]], labels, 23),
    ]
    gradients = [
        torch.autograd.grad(output.square().sum(), leaf, retain_graph=True)[0] for output in outputs
    ]
    return [output.detach() for output in outputs] + [counts] + gradients


def assert_same_bits(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    for a, b in zip(actual, expected, strict=True):
        assert a.dtype == b.dtype
        assert a.stride() == b.stride()
        assert torch.equal(a, b)


def _as_tuple(outputs: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def selectivity_by_definition(
    m: Tensor, labels: Tensor, *, eps: float = 1e-6, ignore_index: int = -100
) -> Tensor:
    """Index of every unit of m [N, C], one class and one unit at a time."""
    rows, classes = m.detach().double().numpy(), labels.tolist()
    present = sorted(set(classes) - {ignore_index})
    index = np.zeros(rows.shape[1])
    for unit in range(rows.shape[1]):
        means = [
            np.mean([row[unit] for row, k in zip(rows, classes, strict=True) if k == label])
            for label in present
        ]
        if len(means) < 2:
            continue
        largest = max(means)
        rest = (sum(means) - largest) / (len(means) - 1)
        if largest == 0 and rest == 0:
            continue
        index[unit] = (largest - rest) / (largest + rest + eps)
    return torch.from_numpy(index)


def refuses(error: type[Exception], *fragments: str) -> object:
    """Expect exactly ``error`` with all fragments, in this order, in one line of its message."""
    return pytest.raises(error, match=".*".join(re.escape(fragment) for fragment in fragments))


# ------------------------------------------------------- operators as functions of one activation


def _relu_outputs(module: object, x: Tensor) -> Tensor:
    y, m = module.relu_with_mean(x - 0.5)
    return torch.cat([y.flatten(1), m.to(y.dtype)], 1)


OPERATORS: dict[str, Callable[[object, Tensor, Tensor, int], Tensor]] = {
    "spatial_mean": lambda module, x, labels, k: module.spatial_mean(x),
    "relu_with_mean": lambda module, x, labels, k: _relu_outputs(module, x),
    "relu": lambda module, x, labels, k: module.relu_with_mean(x - 0.5)[0],
    "mean_of_relu": lambda module, x, labels, k: module.relu_with_mean(x - 0.5)[1],
    "class_means": lambda module, x, labels, k: module.class_means(x, labels, k)[0],
    "selectivity_index": lambda module, x, labels, k: module.selectivity_index(x, labels, k),
    "selectivity_index_from_means": lambda module, x, labels, k: (
        module.selectivity_index_from_means(*module.class_means(x, labels, k))
    ),
    "mean_selectivity": lambda module, x, labels, k: module.mean_selectivity(
        {"maps": x, "rows": x[:, 1:, ..., 0].square().flatten(2).sum(2)}, labels, k
    ),
}


# ------------------------------------------------------------------- transforms of such functions


def _slope(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: grad(function)(x).square().sum()


def _vmapped_sum(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: vmap(function)(x).sum()


# Each turns a function of maps [N, C, H, W] into one of a batch [B, N, C, H, W].
TRANSFORMS: dict[str, Callable[[Callable[[Tensor], Tensor]], Callable[[Tensor], Tensor]]] = {
    "grad": lambda f: lambda x: grad(f)(x[0]),
    "grad_of_grad": lambda f: lambda x: grad(_slope(f))(x[0]),
    "vmap": vmap,
    "vmap_over_last": lambda f: lambda x: vmap(f, in_dims=-1)(x.movedim(0, -1)),
    "vmap_of_vmap": lambda f: lambda x: vmap(vmap(f))(torch.stack([x, 2 * x])),
    "vmap_of_grad": lambda f: vmap(grad(f)),
    "vmap_of_grad_of_grad": lambda f: vmap(grad(_slope(f))),
    "grad_of_vmap": lambda f: grad(_vmapped_sum(f)),
    "grad_of_grad_of_vmap": lambda f: grad(_slope(_vmapped_sum(f))),
    "jacrev": lambda f: lambda x: jacrev(f)(x[0]),
    "jacrev_of_grad": lambda f: lambda x: jacrev(grad(f))(x[0]),
}
