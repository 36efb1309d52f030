"""Bad input of the spectrum operators: the kind of the error, and what its message names."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from cases import refuses

import selkern

X = torch.rand(20, 14)
SPECTRUM = torch.rand(3, 20)
BASIS = torch.rand(14, 13)

of_samples = pytest.mark.parametrize(
    "function",
    [
        lambda x, **options: selkern.covariance(x, **options),
        lambda x, **options: selkern.eigenspectrum(x, **options),
    ],
    ids=["covariance", "eigenspectrum"],
)
of_basis = pytest.mark.parametrize(
    "function",
    [
        lambda basis: selkern.eigenspectrum(X, basis=basis),
        lambda basis: selkern.spectral_loss(X, basis=basis),
    ],
    ids=["eigenspectrum", "spectral_loss"],
)
of_law = pytest.mark.parametrize(
    "function",
    [
        lambda **options: selkern.power_law_penalty(SPECTRUM, **options),
        lambda **options: selkern.spectral_loss(X, **options),
        lambda **options: selkern.spectral_loss({"a": X}, **options),
    ],
    ids=["power_law_penalty", "spectral_loss", "spectral_loss_of_mapping"],
)
NOT_FLOATING = [torch.int64, torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn]


# ---------------------------------------------------------------------------------------- samples


@of_samples
@pytest.mark.parametrize(
    ("x", "kind"), [(np.ones((4, 3)), "ndarray"), ([[1.0]], "list"), (None, "NoneType")]
)
def test_samples_must_be_a_tensor(function: Callable, x: object, kind: str) -> None:
    with refuses(TypeError, "x must be a torch.Tensor", f"got {kind}"):
        function(x)


@of_samples
@pytest.mark.parametrize("dtype", NOT_FLOATING, ids=str)
def test_samples_must_be_floating(function: Callable, dtype: torch.dtype) -> None:
    kind = str(dtype).removeprefix("torch.")
    with refuses(TypeError, "x must be float16, bfloat16, float32 or float64", f"got {kind}"):
        function(torch.zeros(4, 3, dtype=dtype))


@of_samples
def test_samples_must_be_dense(function: Callable) -> None:
    with refuses(TypeError, "x must be a dense", "sparse_coo"):
        function(X.to_sparse())


@of_samples
@pytest.mark.parametrize("shape", [(), (4,)])
def test_samples_must_have_two_axes(function: Callable, shape: tuple) -> None:
    with refuses(ValueError, "x must have at least 2 axes, [..., N, D]", f"got shape {shape}"):
        function(torch.zeros(shape))


@of_samples
@pytest.mark.parametrize(
    ("correction", "kind"), [(1.0, "float"), (True, "bool"), (None, "NoneType"), ("1", "str")]
)
def test_correction_must_be_an_integer(function: Callable, correction: object, kind: str) -> None:
    with refuses(TypeError, "correction must be an integer", f"got {kind}"):
        function(X, correction=correction)


@of_samples
def test_correction_must_not_be_negative(function: Callable) -> None:
    with refuses(ValueError, "correction must be at least 0", "got -1"):
        function(X, correction=-1)


@of_samples
@pytest.mark.parametrize(
    ("shape", "correction"), [((1, 5), 1), ((0, 5), 0), ((3, 4, 5), 4), ((2, 3), 7), ((0, 1, 2), 1)]
)
def test_there_must_be_more_samples_than_correction(
    function: Callable, shape: tuple, correction: int
) -> None:
    with refuses(
        ValueError,
        "x must have more samples than correction",
        f"{correction}",
        f"got N = {shape[-2]} in shape {shape}",
    ):
        function(torch.zeros(shape), correction=correction)


# ------------------------------------------------------------------------------------------ basis


@of_basis
@pytest.mark.parametrize(
    ("basis", "kind"), [(np.ones((14, 13)), "ndarray"), (1.0, "float"), (BASIS.long(), "int64")]
)
def test_a_basis_must_be_a_floating_tensor(function: Callable, basis: object, kind: str) -> None:
    with refuses(TypeError, "basis must be", f"got {kind}"):
        function(basis)


@of_basis
@pytest.mark.parametrize("shape", [(13, 14), (14,), (15, 13), (1, 14, 13), ()])
def test_a_basis_must_have_a_row_for_each_unit(function: Callable, shape: tuple) -> None:
    with refuses(ValueError, "basis must have shape [14, R]", f"got {shape}"):
        function(torch.zeros(shape))


@of_basis
def test_a_basis_must_be_on_the_device_of_the_activations(function: Callable) -> None:
    with refuses(ValueError, "basis must be on cpu", "got meta"):
        function(BASIS.to("meta"))


# --------------------------------------------------------------------------------------- spectrum


@pytest.mark.parametrize(("spectrum", "kind"), [([1.0] * 20, "list"), (X.long(), "int64")])
def test_a_spectrum_must_be_a_floating_tensor(spectrum: object, kind: str) -> None:
    with refuses(TypeError, "spectrum must be", f"got {kind}"):
        selkern.power_law_penalty(spectrum)


def test_a_spectrum_must_have_an_axis() -> None:
    with refuses(ValueError, "spectrum must have at least 1 axis, [..., R]", "got shape ()"):
        selkern.power_law_penalty(torch.tensor(1.0))


@pytest.mark.parametrize(("ranks", "anchor"), [(11, 11), (0, 11), (3, 11), (5, 5), (1, 1)])
def test_there_must_be_a_rank_after_the_anchor(ranks: int, anchor: int) -> None:
    for batch in [(), (2,), (0,)]:
        with refuses(
            ValueError,
            f"spectrum must have at least {anchor + 1} ranks for anchor={anchor}",
            f"got {ranks}",
            "lower the anchor",
            "drop_last=True",
        ):
            selkern.power_law_penalty(torch.ones(*batch, ranks), anchor=anchor)


@pytest.mark.parametrize(
    ("shape", "cure"),
    [
        ((12, 40), "drop_last=True"),
        ((1, 40), "drop_last=True"),
        ((0, 20), "drop_last=True"),
        ((40, 11), "leave so narrow a layer out"),
        ((3, 5, 2), "leave so narrow a layer out"),
        ((20, 0), "leave so narrow a layer out"),
    ],
)
def test_too_few_ranks_are_named_with_the_samples_the_units_and_the_cure(
    shape: tuple, cure: str
) -> None:
    x = torch.rand(shape)
    samples, units = shape[0], x.flatten(1).shape[1]
    for activations, name in [(x, "activations"), ({"a": X, "b": x}, "activations['b']")]:
        with refuses(
            ValueError,
            f"{name} must have at least 12 ranks that can be above 0 for anchor=11",
            f"got {max(0, min(samples - 1, units))} from N = {samples} samples",
            f"D = {units} units",
            cure,
        ):
            selkern.spectral_loss(activations)


def test_a_basis_with_few_directions_has_few_ranks() -> None:
    with refuses(
        ValueError, "at least 12 ranks", "got 7", "N = 20", "D = 14", "a basis of more directions"
    ):
        selkern.spectral_loss(X, basis=BASIS[:, :7])
    with refuses(ValueError, "at least 12 ranks", "got 8", "leave so narrow a layer out"):
        selkern.spectral_loss(X[:, :8], basis=torch.eye(8))


@pytest.mark.parametrize("samples", [0, 1])
def test_there_must_be_two_samples_along_a_basis(samples: int) -> None:
    with refuses(
        ValueError, "activations must have at least 2 samples", f"N = {samples}", "drop_last=True"
    ):
        selkern.spectral_loss(X[:samples], basis=BASIS)


# ---------------------------------------------------------------------------------- the power law


@of_law
@pytest.mark.parametrize(
    ("exponent", "kind"), [("1", "str"), (None, "NoneType"), (True, "bool"), (1j, "complex")]
)
def test_exponent_must_be_a_real_number(function: Callable, exponent: object, kind: str) -> None:
    with refuses(TypeError, "exponent must be a real number", f"got {kind}"):
        function(exponent=exponent)


@of_law
@pytest.mark.parametrize("exponent", [float("nan"), float("inf"), -1.0, 10**400])
def test_exponent_must_be_finite_and_not_negative(function: Callable, exponent: float) -> None:
    with refuses(ValueError, "exponent must be finite and at least 0", "got "):
        function(exponent=exponent)


@of_law
@pytest.mark.parametrize(
    ("anchor", "kind"), [(11.0, "float"), (True, "bool"), (None, "NoneType"), ("11", "str")]
)
def test_anchor_must_be_an_integer(function: Callable, anchor: object, kind: str) -> None:
    with refuses(TypeError, "anchor must be an integer", f"got {kind}"):
        function(anchor=anchor)


@of_law
@pytest.mark.parametrize("anchor", [0, -1, 2**40])
def test_anchor_must_be_a_rank(function: Callable, anchor: int) -> None:
    with refuses(ValueError, "anchor must be a rank, counted from 1", f"got {anchor}"):
        function(anchor=anchor)


@pytest.mark.parametrize(("width", "kind"), [(20.0, "float"), (True, "bool"), ("20", "str")])
def test_width_must_be_an_integer(width: object, kind: str) -> None:
    with refuses(TypeError, "width must be an integer", f"got {kind}"):
        selkern.power_law_penalty(SPECTRUM, width=width)


@pytest.mark.parametrize("width", [0, -3, 2**63])
def test_width_must_be_positive(width: int) -> None:
    with refuses(ValueError, "width must be at least 1", f"got {width}"):
        selkern.power_law_penalty(SPECTRUM, width=width)


@pytest.mark.parametrize(
    ("kappa", "kind"), [("1", "str"), (True, "bool"), ([1.0], "list"), (1j, "complex")]
)
def test_kappa_must_be_a_number_or_a_tensor(kappa: object, kind: str) -> None:
    with refuses(TypeError, "kappa must be a real number", f"got {kind}"):
        selkern.power_law_penalty(SPECTRUM, kappa=kappa)
    with refuses(TypeError, "kappa[0] must be a real number", f"got {kind}"):
        selkern.spectral_loss([X], kappa=[kappa])


@pytest.mark.parametrize("kappa", [0, -1.0, float("nan"), float("inf")])
def test_kappa_must_be_finite_and_positive(kappa: float) -> None:
    with refuses(ValueError, "kappa must be finite and greater than 0", f"got {kappa}"):
        selkern.power_law_penalty(SPECTRUM, kappa=kappa)
    with refuses(ValueError, "kappa must be finite and greater than 0", f"got {kappa}"):
        selkern.spectral_loss(X, kappa=kappa)


def test_kappa_must_have_the_dtype_and_the_shape_of_the_batch() -> None:
    with refuses(TypeError, "kappa must be float16", "got int64"):
        selkern.power_law_penalty(SPECTRUM, kappa=torch.tensor(1))
    for shape in [(1,), (4,), (3, 1), (1, 3), (20,)]:
        with refuses(ValueError, "kappa must have shape () or (3,)", f"got {shape}"):
            selkern.power_law_penalty(SPECTRUM, kappa=torch.ones(shape))
    with refuses(ValueError, "kappa must have shape ()", "got (1,)"):
        selkern.spectral_loss(X, kappa=torch.ones(1))
    with refuses(ValueError, "kappa must be on cpu", "got meta"):
        selkern.power_law_penalty(SPECTRUM, kappa=torch.ones(3, device="meta"))


# ----------------------------------------------------------------------------------------- layers


@pytest.mark.parametrize("activations", [[], (), {}])
def test_there_must_be_a_layer(activations: object) -> None:
    with refuses(ValueError, "activations must hold at least one tensor", "got none"):
        selkern.spectral_loss(activations)


@pytest.mark.parametrize(
    ("activations", "kind"), [("tanh", "str"), (iter([X]), "list_iterator"), (None, "NoneType")]
)
def test_activations_must_be_a_sequence_or_a_mapping(activations: object, kind: str) -> None:
    with refuses(TypeError, "activations must be", "sequence", "mapping", f"got {kind}"):
        selkern.spectral_loss(activations)


def test_the_bad_layer_is_named() -> None:
    with refuses(TypeError, "activations[1] must be a torch.Tensor", "got float"):
        selkern.spectral_loss([X, 2.0])
    with refuses(TypeError, "activations['b'] must be float16", "got int64"):
        selkern.spectral_loss({"a": X, "b": X.long()})
    with refuses(ValueError, "activations[1] must have at least 2 axes, [N, ...]", "(20,)"):
        selkern.spectral_loss([X, X[:, 0]])
    with refuses(ValueError, "activations[1] must be on cpu", "got meta"):
        selkern.spectral_loss([X, X.to("meta")])


@pytest.mark.parametrize("name", ["basis", "kappa"])
class TestOnePerLayer:
    def entry(self, name: str) -> object:
        return BASIS if name == "basis" else 1.0

    def test_of_a_sequence(self, name: str) -> None:
        for value in ([self.entry(name)], [self.entry(name)] * 3, []):
            with refuses(
                ValueError, f"{name} must have one entry for each of the 2", f"got {len(value)}"
            ):
                selkern.spectral_loss([X, X], **{name: value})

    def test_a_single_value_is_for_a_single_tensor(self, name: str) -> None:
        for activations in ([X, X], {"a": X}):
            with refuses(TypeError, f"{name} must be a sequence with one entry", "got"):
                selkern.spectral_loss(activations, **{name: self.entry(name)})

    def test_of_a_mapping(self, name: str) -> None:
        for value in ({"a": self.entry(name)}, {"a": None, "c": None}):
            with refuses(ValueError, f"{name} must have the keys of activations"):
                selkern.spectral_loss({"a": X, "b": X}, **{name: value})
        with refuses(ValueError, f"{name} must have the keys of activations", "mapping"):
            selkern.spectral_loss([X], **{name: {0: self.entry(name)}})

    def test_the_bad_entry_is_named(self, name: str) -> None:
        bad = torch.zeros(3, 3, 3)
        with refuses(ValueError, f"{name}[1] must have shape", "got (3, 3, 3)"):
            selkern.spectral_loss([X, X], **{name: [self.entry(name), bad]})
        with refuses(ValueError, f"{name}['b'] must have shape", "got (3, 3, 3)"):
            selkern.spectral_loss({"a": X, "b": X}, **{name: {"a": None, "b": bad}})
