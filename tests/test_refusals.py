"""Bad input: the kind of the error, and a message with the name, the expectation and what came."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from cases import refuses
from torch import Tensor
from torch.func import grad, vmap

import selkern
from selkern import reference

X = torch.rand(4, 3, 2, 2)
ROWS = torch.rand(4, 3)
LABELS = torch.tensor([0, 1, 2, 1])

OF_ACTIVATIONS: dict[str, Callable[..., object]] = {
    "spatial_mean": lambda x, **options: selkern.spatial_mean(x, **options),
    "relu_with_mean": lambda x, **options: selkern.relu_with_mean(x, **options),
    "class_means": lambda x, **options: selkern.class_means(x, LABELS, 3, **options),
    "selectivity_index": lambda x, **options: selkern.selectivity_index(x, LABELS, 3, **options),
    "mean_selectivity": lambda x, **options: selkern.mean_selectivity(x, LABELS, 3, **options),
}
OF_LABELS: dict[str, Callable[..., object]] = {
    "class_means": selkern.class_means,
    "selectivity_index": selkern.selectivity_index,
    "mean_selectivity": selkern.mean_selectivity,
}
of_activations = pytest.mark.parametrize("function", OF_ACTIVATIONS.values(), ids=OF_ACTIVATIONS)
of_labels = pytest.mark.parametrize("function", OF_LABELS.values(), ids=OF_LABELS)
of_eps = pytest.mark.parametrize(
    "function",
    [
        lambda eps: selkern.selectivity_index(X, LABELS, 3, eps=eps),
        lambda eps: selkern.selectivity_index_from_means(ROWS, eps=eps),
        lambda eps: selkern.mean_selectivity(X, LABELS, 3, eps=eps),
    ],
    ids=["selectivity_index", "selectivity_index_from_means", "mean_selectivity"],
)


# ------------------------------------------------------------------------------- activations


@of_activations
@pytest.mark.parametrize(
    ("x", "kind"), [(np.ones((4, 3)), "ndarray"), (None, "NoneType"), (1.0, "float")]
)
def test_activations_must_be_tensors(function: Callable, x: object, kind: str) -> None:
    with refuses(TypeError, "must be", "Tensor", f"got {kind}"):
        function(x)


@pytest.mark.parametrize("name", ["spatial_mean", "relu_with_mean", "class_means"])
def test_lists_are_not_tensors(name: str) -> None:
    with refuses(TypeError, "x must be a torch.Tensor", "got list"):
        OF_ACTIVATIONS[name]([[1.0, 2.0]])


@of_activations
@pytest.mark.parametrize(
    "dtype",
    [torch.int64, torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn],
    ids=str,
)
def test_activations_must_be_floating(function: Callable, dtype: torch.dtype) -> None:
    with refuses(
        TypeError,
        "must be float16, bfloat16, float32 or float64",
        f"got {str(dtype).removeprefix('torch.')}",
    ):
        function(torch.zeros(4, 3, dtype=dtype))


@of_activations
def test_activations_must_be_dense(function: Callable) -> None:
    with refuses(TypeError, "dense", "sparse_coo"):
        function(torch.ones(4, 3).to_sparse())


@of_activations
@pytest.mark.parametrize("shape", [(), (4,), (4, 3, 1, 1, 1, 1)])
def test_activations_must_have_two_to_five_axes(function: Callable, shape: tuple) -> None:
    with refuses(ValueError, "must have 2 to 5 axes", f"got shape {shape}"):
        function(torch.zeros(shape))


@of_activations
@pytest.mark.parametrize("axis", [0, -4])
def test_the_sample_axis_cannot_hold_the_units(function: Callable, axis: int) -> None:
    with refuses(ValueError, "unit_dim must not be 0", f"got {axis}"):
        function(X, unit_dim=axis)


@of_activations
@pytest.mark.parametrize("axis", [4, -5, 10**20])
def test_unit_dim_must_be_an_axis(function: Callable, axis: int) -> None:
    with refuses(ValueError, "unit_dim must be an axis of a tensor with 4 axes", f"got {axis}"):
        function(X, unit_dim=axis)


@of_activations
@pytest.mark.parametrize(
    ("axis", "kind"), [(1.0, "float"), (True, "bool"), (None, "NoneType"), ("1", "str")]
)
def test_unit_dim_must_be_an_integer(function: Callable, axis: object, kind: str) -> None:
    with refuses(TypeError, "unit_dim must be", f"got {kind}"):
        function(X, unit_dim=axis)


# ------------------------------------------------------------------------------- labels


@of_labels
@pytest.mark.parametrize(
    ("labels", "kind"), [([0, 1, 2, 1], "list"), (np.arange(4), "ndarray"), (None, "NoneType")]
)
def test_labels_must_be_a_tensor(function: Callable, labels: object, kind: str) -> None:
    with refuses(TypeError, "labels must be a torch.Tensor", f"got {kind}"):
        function(X, labels, 3)


@of_labels
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.uint8, torch.int16, torch.bool, torch.complex64], ids=str
)
def test_labels_must_be_int64_or_int32(function: Callable, dtype: torch.dtype) -> None:
    with refuses(
        TypeError, "labels must be int64 or int32", f"got {str(dtype).removeprefix('torch.')}"
    ):
        function(X, LABELS.to(dtype), 3)


@of_labels
@pytest.mark.parametrize("shape", [(), (3,), (5,), (4, 1), (1, 4), (0,)])
def test_labels_must_have_one_entry_per_sample(function: Callable, shape: tuple) -> None:
    with refuses(ValueError, "labels must have shape [4]", f"got {list(shape)}"):
        function(X, torch.zeros(shape, dtype=torch.int64), 3)


@of_labels
def test_labels_must_be_on_the_device_of_the_activations(function: Callable) -> None:
    with refuses(ValueError, "labels must be on cpu", "got meta"):
        function(X, LABELS.to("meta"), 3)


BAD_LABELS = [
    ([0, 3, 2, 9], 3, 1),
    ([0, 1, 2, -1], -1, 3),
    ([-101, 1, 2, 0], -101, 0),
    ([0, 1, 2**31 - 1, 4], 2**31 - 1, 2),
    ([0, 1, -(2**31), 4], -(2**31), 2),
]


@of_labels
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32], ids=str)
@pytest.mark.parametrize(("labels", "value", "row"), BAD_LABELS)
@pytest.mark.parametrize("module", [selkern, reference], ids=["fused", "plain"])
def test_the_first_bad_label_is_named_with_its_row(
    module: object,
    labels: list[int],
    value: int,
    row: int,
    dtype: torch.dtype,
    function: Callable,
) -> None:
    function = getattr(module, function.__name__)
    with refuses(
        ValueError,
        "labels must be in [0, 3) or equal to ignore_index (-100)",
        f"got {value} at row {row}",
    ):
        function(X, torch.tensor(labels, dtype=dtype), 3)


@of_labels
@pytest.mark.parametrize("value", [2**31, 2**32, 2**32 + 1, -(2**63), 2**63 - 1])
def test_labels_are_compared_in_64_bits(function: Callable, value: int) -> None:
    with refuses(ValueError, f"got {value} at row 2"):
        function(X, torch.tensor([0, 1, value, 1]), 3)


@of_labels
def test_bad_labels_of_strided_labels_are_named(function: Callable) -> None:
    labels = torch.tensor([[0, 99], [1, 99], [7, 99], [8, 99]])[:, 0]
    with refuses(ValueError, "got 7 at row 2"):
        function(X, labels, 3)


@of_labels
def test_the_default_is_a_bad_label_where_another_is_ignored(function: Callable) -> None:
    with refuses(ValueError, "ignore_index (-1)", "got -100 at row 3"):
        function(X, torch.tensor([0, -1, 1, -100]), 3, ignore_index=-1)


def _scalar(name: str, labels: Tensor) -> Callable[[Tensor], Tensor]:
    def function(x: Tensor) -> Tensor:
        output = getattr(selkern, name)(x, labels, 3)
        return (output if isinstance(output, Tensor) else output[0]).sum()

    return function


@pytest.mark.parametrize("name", OF_LABELS)
def test_bad_labels_are_named_under_transforms(name: str) -> None:
    labels = torch.tensor([0, 3, 2, 9])
    batch = torch.stack([X, X])
    with refuses(ValueError, "labels must be in [0, 3)", "got 3 at row 1"):
        grad(_scalar(name, labels))(X)
    with refuses(ValueError, "labels must be in [0, 3)", "got 3 at row 1"):
        vmap(grad(_scalar(name, labels)))(batch)
    with refuses(ValueError, "labels must be in [0, 3)", "got 3 at row 1"):
        vmap(lambda labels: _scalar(name, labels)(X))(torch.stack([LABELS, labels]))


def test_a_refused_call_leaves_the_gradients_alone() -> None:
    x = X.clone().requires_grad_()
    with pytest.raises(ValueError, match="labels"):
        selkern.mean_selectivity(x, torch.tensor([0, 1, 2, 3]), 3)
    selkern.mean_selectivity(x, LABELS, 3).backward()
    assert x.grad.any()


# ------------------------------------------------------------------------------- numbers


@of_labels
@pytest.mark.parametrize(
    ("num_classes", "kind"),
    [
        (True, "bool"),
        (3.0, "float"),
        ("3", "str"),
        (None, "NoneType"),
        (np.float64(3), "float64"),
        (torch.tensor(3.0), "Tensor"),
    ],
)
def test_num_classes_must_be_an_integer(function: Callable, num_classes: object, kind: str) -> None:
    with refuses(TypeError, "num_classes must be an integer", f"got {kind}"):
        function(X, LABELS, num_classes)


@of_labels
@pytest.mark.parametrize("num_classes", [0, -3])
def test_num_classes_must_be_positive(function: Callable, num_classes: int) -> None:
    with refuses(ValueError, "num_classes must be at least 1", f"got {num_classes}"):
        function(X, LABELS, num_classes)


@of_labels
@pytest.mark.parametrize(
    ("ignore_index", "kind"), [(True, "bool"), (1.0, "float"), (None, "NoneType"), ("", "str")]
)
def test_ignore_index_must_be_an_integer(
    function: Callable, ignore_index: object, kind: str
) -> None:
    with refuses(TypeError, "ignore_index must be an integer", f"got {kind}"):
        function(X, LABELS, 3, ignore_index=ignore_index)


@of_eps
@pytest.mark.parametrize(
    ("eps", "kind"),
    [(True, "bool"), ("0", "str"), (None, "NoneType"), (1j, "complex"), ([1e-6], "list")],
)
def test_eps_must_be_a_real_number(function: Callable, eps: object, kind: str) -> None:
    with refuses(TypeError, "eps must be a real number", f"got {kind}"):
        function(eps)


@of_eps
@pytest.mark.parametrize("eps", [-1e-6, float("nan"), float("inf"), -float("inf"), -1])
def test_eps_must_be_finite_and_not_negative(function: Callable, eps: float) -> None:
    with refuses(ValueError, "eps must be finite and at least 0", f"got {eps}"):
        function(eps)


@of_eps
@pytest.mark.parametrize("eps", [np.float64(1e-6), np.float32(1e-6), np.int64(0), 0])
def test_any_real_number_may_be_eps(function: Callable, eps: object) -> None:
    torch.testing.assert_close(function(eps), function(float(eps)))


# ------------------------------------------------------------------------------- class means


@pytest.mark.parametrize("shape", [(3,), (4, 3, 2), ()])
def test_means_must_be_a_matrix(shape: tuple) -> None:
    with refuses(ValueError, "means must have", f"{list(shape)}"[1:-1]):
        selkern.selectivity_index_from_means(torch.zeros(shape))


@pytest.mark.parametrize(("means", "kind"), [([[1.0]], "list"), (ROWS.int(), "int32")])
def test_means_must_be_a_floating_tensor(means: object, kind: str) -> None:
    with refuses(TypeError, "means must be", f"got {kind}"):
        selkern.selectivity_index_from_means(means)


@pytest.mark.parametrize("counts", [[1, 1, 1, 1], torch.ones(4), torch.ones(4, dtype=torch.bool)])
def test_counts_must_be_an_integer_tensor(counts: object) -> None:
    kind = str(counts.dtype)[6:] if isinstance(counts, Tensor) else "list"
    with refuses(TypeError, "counts must be", f"got {kind}"):
        selkern.selectivity_index_from_means(ROWS, counts)


@pytest.mark.parametrize("shape", [(3,), (5,), (4, 1), ()])
def test_counts_must_have_one_entry_per_class(shape: tuple) -> None:
    with refuses(ValueError, "counts must have shape [4]", f"got {list(shape)}"):
        selkern.selectivity_index_from_means(ROWS, torch.ones(shape, dtype=torch.int64))


def test_counts_must_be_on_the_device_of_the_means() -> None:
    with refuses(ValueError, "counts must be on cpu", "got meta"):
        selkern.selectivity_index_from_means(ROWS, torch.ones(4, dtype=torch.int64, device="meta"))


# ------------------------------------------------------------------------------- layers


@pytest.mark.parametrize("activations", [[], (), {}])
def test_there_must_be_a_layer(activations: object) -> None:
    with refuses(ValueError, "activations must hold at least one tensor", "got none"):
        selkern.mean_selectivity(activations, LABELS, 3)


@pytest.mark.parametrize(
    ("activations", "kind"), [("relu", "str"), (iter([X]), "list_iterator"), ({X}, "set")]
)
def test_activations_must_be_a_sequence_or_a_mapping(activations: object, kind: str) -> None:
    with refuses(TypeError, "activations must be", "sequence", "mapping", f"got {kind}"):
        selkern.mean_selectivity(activations, LABELS, 3)


@pytest.mark.parametrize(
    ("activations", "name"),
    [([X, 2.0], "activations[1]"), ({"a": X, "b": 2.0}, "activations['b']")],
)
def test_the_layer_that_is_no_tensor_is_named(activations: object, name: str) -> None:
    with refuses(TypeError, f"{name} must be a torch.Tensor", "got float"):
        selkern.mean_selectivity(activations, LABELS, 3)


def test_the_layer_with_a_bad_shape_or_dtype_is_named() -> None:
    with refuses(ValueError, "activations[1] must have 2 to 5 axes", "(4,)"):
        selkern.mean_selectivity([X, X[:, 0, 0, 0]], LABELS, 3)
    with refuses(TypeError, "activations['b'] must be float16", "got int64"):
        selkern.mean_selectivity({"a": X, "b": X.long()}, LABELS, 3)


def test_layers_must_have_the_same_samples() -> None:
    with refuses(ValueError, "activations[1] must have 4 samples like activations[0]", "got 3"):
        selkern.mean_selectivity([X, X[:3]], LABELS, 3)


def test_layers_must_be_on_one_device() -> None:
    with refuses(ValueError, "activations[1] must be on cpu", "got meta"):
        selkern.mean_selectivity([X, X.to("meta")], LABELS, 3)


@pytest.mark.parametrize("activations", [X[:, :0], [X, X[:, :0]], {"a": ROWS[:, :0]}])
def test_a_layer_must_have_a_unit(activations: object) -> None:
    with refuses(ValueError, "must have at least one unit", "got shape (4, 0"):
        selkern.mean_selectivity(activations, LABELS, 3)


@pytest.mark.parametrize("unit_dim", [[1], (1, 1, 1), []])
def test_unit_dim_must_have_one_entry_per_layer(unit_dim: object) -> None:
    with refuses(ValueError, "unit_dim", "2", f"got {len(unit_dim)}"):
        selkern.mean_selectivity([X, X], LABELS, 3, unit_dim=unit_dim)


def test_unit_dim_must_have_the_keys_of_the_layers() -> None:
    with refuses(ValueError, "unit_dim", "keys"):
        selkern.mean_selectivity({"a": X, "b": X}, LABELS, 3, unit_dim={"a": 1})
    with refuses(ValueError, "unit_dim", "keys"):
        selkern.mean_selectivity({"a": X}, LABELS, 3, unit_dim={"a": 1, "b": 1})
    with refuses(ValueError, "unit_dim", "mapping"):
        selkern.mean_selectivity([X], LABELS, 3, unit_dim={0: 1})


def test_every_entry_of_unit_dim_is_checked() -> None:
    with refuses(ValueError, "unit_dim", "got 2"):
        selkern.mean_selectivity([X, ROWS], LABELS, 3, unit_dim=[1, 2])
    with refuses(TypeError, "unit_dim", "got float"):
        selkern.mean_selectivity([X, ROWS], LABELS, 3, unit_dim=[1, 1.0])
