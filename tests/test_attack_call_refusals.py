"""Bad images, labels, models and losses when an attack is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from attack_cases import NUM_CLASSES, classes, images, smooth_model
from cases import refuses
from torch import Tensor
from torch.nn import functional as F

from selkern.attacks import FGSM, PGD

X = images(4, torch.float32)
LABELS = classes(4)
MODEL = smooth_model(torch.float32)


def called(kind: type[PGD]) -> Callable[..., Tensor]:
    def call(**change: Any) -> Tensor:
        attack = kind(change.pop("model", MODEL), **change.pop("options", {}))
        return attack(change.pop("images", X), change.pop("labels", LABELS), **change)

    return call


of_calls = pytest.mark.parametrize("function", [called(FGSM), called(PGD)], ids=["FGSM", "PGD"])


# ------------------------------------------------------------------------------- images


@of_calls
@pytest.mark.parametrize(
    ("value", "kind"), [(X.numpy(), "ndarray"), (None, "NoneType"), ([X], "list")]
)
def test_images_must_be_a_tensor(function: Callable, value: object, kind: str) -> None:
    with refuses(TypeError, "images must be a torch.Tensor", f"got {kind}"):
        function(images=value)


@of_calls
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool], ids=str)
def test_images_must_be_floating(function: Callable, dtype: torch.dtype) -> None:
    with refuses(
        TypeError,
        "images must be float16, bfloat16, float32 or float64",
        f"got {str(dtype).removeprefix('torch.')}",
    ):
        function(images=X.to(dtype))


@of_calls
@pytest.mark.parametrize("shape", [(), (4,), (4, 3, 1, 1, 1, 1)])
def test_images_must_have_two_to_five_axes(function: Callable, shape: tuple[int, ...]) -> None:
    with refuses(ValueError, "images must have 2 to 5 axes", f"got shape {shape}"):
        function(images=torch.zeros(shape))


@of_calls
@pytest.mark.parametrize(
    ("x", "bounds", "expected", "came"),
    [
        (X * 255, (0.0, 1.0), "0 to 1", "got 0 to 255"),
        (X - 0.5, (0.0, 1.0), "0 to 1", "got -0.5 to 0.5"),
        (X, (0.25, 1.0), "0.25 to 1", "got 0 to 1"),
        (X, (-1.0, 0.5), "-1 to 0.5", "got 0 to 1"),
        (X - 1, (0.0, torch.inf), "0 to inf", "got -1 to 0"),
        (X.masked_fill(X > 0.9, torch.nan), (0.0, 1.0), "0 to 1", "got nan to nan"),
        (X.masked_fill(X > 0.9, torch.inf), (0.0, 1.0), "0 to 1", "got 0 to inf"),
        (X + 1e-5, (0.0, 1.0), "0 to 1", "got 1e-05 to 1.00001"),
    ],
)
def test_images_must_be_within_bounds(
    function: Callable, x: Tensor, bounds: tuple[float, float], expected: str, came: str
) -> None:
    with refuses(ValueError, f"images must be within bounds, {expected}", came, "pass bounds="):
        function(images=x, options={"bounds": bounds})


# ------------------------------------------------------------------------------- labels


@of_calls
@pytest.mark.parametrize("loss", [None, lambda logits, labels: logits.sum()])
@pytest.mark.parametrize(
    ("value", "kind"), [([0, 1, 2, 1], "list"), (np.arange(4), "ndarray"), (None, "NoneType")]
)
def test_labels_must_be_a_tensor(
    function: Callable, value: object, kind: str, loss: object
) -> None:
    with refuses(TypeError, "labels must be a torch.Tensor", f"got {kind}"):
        function(labels=value, options={"loss": loss})


@of_calls
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.int16, torch.bool], ids=str)
def test_labels_must_be_int64_or_int32(function: Callable, dtype: torch.dtype) -> None:
    with refuses(
        TypeError, "labels must be int64 or int32", f"got {str(dtype).removeprefix('torch.')}"
    ):
        function(labels=LABELS.to(dtype))


@of_calls
@pytest.mark.parametrize("shape", [(), (3,), (5,), (4, 1), (1, 4), (0,)])
def test_labels_must_have_one_entry_per_image(function: Callable, shape: tuple[int, ...]) -> None:
    with refuses(ValueError, "labels must have shape [4]", f"got {list(shape)}"):
        function(labels=torch.zeros(shape, dtype=torch.int64))


@of_calls
@pytest.mark.parametrize("shape", [(), (3,), (5, 4), (0,)])
def test_labels_of_a_loss_must_have_a_row_per_image(
    function: Callable, shape: tuple[int, ...]
) -> None:
    options = {"loss": lambda logits, labels: logits.sum()}
    with refuses(ValueError, "labels must have 4 rows like images", f"got shape {list(shape)}"):
        function(labels=torch.zeros(shape), options=options)


def test_early_stop_needs_classes_whatever_the_loss() -> None:
    attack = PGD(MODEL, early_stop=True, loss=lambda logits, labels: (logits * labels).sum())
    with refuses(TypeError, "labels must be int64 or int32", "got float32"):
        attack(X, torch.ones(4, NUM_CLASSES))


@of_calls
@pytest.mark.parametrize("loss", [None, lambda logits, labels: logits.sum()])
def test_labels_must_be_on_the_device_of_the_images(function: Callable, loss: object) -> None:
    with refuses(ValueError, "labels must be on cpu like the images", "got meta"):
        function(labels=LABELS.to("meta"), options={"loss": loss})


@of_calls
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize(
    ("labels", "value", "row"),
    [
        ([0, 4, 9, 1], 4, 1),
        ([0, 1, 2, -1], -1, 3),
        ([-100, 1, 2, -99], -99, 3),
        ([0, 2**32, 1, 2], 2**32, 1),
    ],
)
def test_the_first_label_without_a_logit_is_named(
    function: Callable, labels: list[int], value: int, row: int, targeted: bool
) -> None:
    with refuses(ValueError, "labels must be -100 or in [0, 4)", f"got {value} in row {row}"):
        function(labels=torch.tensor(labels), options={"targeted": targeted})


# ------------------------------------------------------------------------------- model and loss


@of_calls
@pytest.mark.parametrize(
    ("model", "kind"),
    [(lambda x: (MODEL(x), x), "tuple"), (lambda x: {"logits": MODEL(x)}, "dict")],
)
def test_model_must_return_a_tensor(function: Callable, model: Callable, kind: str) -> None:
    with refuses(TypeError, "model must return logits, a torch.Tensor", f"got {kind}"):
        function(model=model)


@of_calls
@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (lambda x: MODEL(x)[0], [4]),
        (lambda x: MODEL(x)[:3], [3, 4]),
        (lambda x: MODEL(x)[..., None], [4, 4, 1]),
        (lambda x: MODEL(x).sum(), []),
    ],
)
def test_model_must_return_a_row_of_logits_per_image(
    function: Callable, model: Callable, shape: list[int]
) -> None:
    with refuses(ValueError, "model must return logits [4, K]", f"got shape {shape}"):
        function(model=model)


def test_early_stop_needs_logits_whatever_the_loss() -> None:
    options = {"early_stop": True, "loss": lambda logits, labels: logits[0].sum()}
    with refuses(TypeError, "model must return logits, a torch.Tensor", "got tuple"):
        PGD(lambda x: (MODEL(x),), **options)(X, LABELS)
    assert not torch.equal(PGD(lambda x: (MODEL(x),), loss=options["loss"])(X, LABELS), X)


@of_calls
@pytest.mark.parametrize(
    ("loss", "error", "message"),
    [
        (lambda logits, y: 1.0, TypeError, "loss must return a torch.Tensor, got float"),
        (lambda logits, y: None, TypeError, "loss must return a torch.Tensor, got NoneType"),
        (
            lambda logits, y: F.cross_entropy(logits, y, reduction="none"),
            ValueError,
            "loss must return a scalar, got shape [4]",
        ),
        (
            lambda logits, y: logits.sum().reshape(1),
            ValueError,
            "loss must return a scalar, got shape [1]",
        ),
    ],
)
def test_loss_must_return_a_scalar(
    function: Callable, loss: Callable, error: type[Exception], message: str
) -> None:
    with refuses(error, message):
        function(options={"loss": loss})


@of_calls
@pytest.mark.parametrize(
    "change",
    [
        {"model": lambda x: MODEL(x.detach()).detach()},
        {"model": lambda x: MODEL(torch.ones_like(x))},
        {"model": lambda x: torch.zeros(4, 3, requires_grad=True) + 1},
        {"options": {"loss": lambda logits, labels: torch.ones(())}},
        {"options": {"loss": lambda logits, labels: logits.detach().sum()}},
    ],
    ids=["detached", "of_others", "of_parameters", "constant_loss", "detached_loss"],
)
def test_the_loss_must_depend_on_the_images(function: Callable, change: dict[str, Any]) -> None:
    with refuses(ValueError, "the loss must depend on the images through model", "does not"):
        function(**change, labels=LABELS % 3)
