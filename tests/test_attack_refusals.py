"""Bad arguments of a step or an attack: the kind of the error, and what its message says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from attack_cases import classes, images, smooth_model
from cases import refuses
from torch import Tensor

from selkern.attacks import FGSM, PGD, pgd_step

X = images(4, torch.float32)
LABELS = classes(4)
MODEL = smooth_model(torch.float32)


def step(**change: Any) -> Tensor:
    arguments = {"adv": X, "grad": X, "images": X, "eps": 0.1, "alpha": 0.05} | change
    tensors = [arguments.pop(name) for name in ("adv", "grad", "images")]
    return pgd_step(*tensors, **arguments)


def constructed(kind: type[PGD]) -> Callable[..., object]:
    return lambda **change: kind(change.pop("model", MODEL), **change)


BY = {"pgd_step": step, "FGSM": constructed(FGSM), "PGD": constructed(PGD)}
of_all = pytest.mark.parametrize("function", BY.values(), ids=BY)
of_steps = pytest.mark.parametrize("function", [BY["pgd_step"], BY["PGD"]], ids=["pgd_step", "PGD"])
of_loops = pytest.mark.parametrize("function", [BY["FGSM"], BY["PGD"]], ids=["FGSM", "PGD"])
of_tensors = pytest.mark.parametrize("name", ["adv", "grad", "images", "out"])
like_adv = pytest.mark.parametrize("name", ["grad", "images", "out"])


# ------------------------------------------------------------------------------- tensors of a step


@of_tensors
@pytest.mark.parametrize(
    ("value", "kind"), [(np.ones((4, 3)), "ndarray"), ([[1.0]], "list"), (1.0, "float")]
)
def test_a_step_takes_tensors(name: str, value: object, kind: str) -> None:
    with refuses(TypeError, f"{name} must be a torch.Tensor", f"got {kind}"):
        step(**{name: value})


@pytest.mark.parametrize("name", ["adv", "grad", "images"])
def test_no_tensor_of_a_step_may_be_missing(name: str) -> None:
    with refuses(TypeError, f"{name} must be a torch.Tensor", "got NoneType"):
        step(**{name: None})


@of_tensors
@pytest.mark.parametrize(
    "dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn], ids=str
)
def test_tensors_of_a_step_must_be_floating(name: str, dtype: torch.dtype) -> None:
    with refuses(
        TypeError,
        f"{name} must be float16, bfloat16, float32 or float64",
        f"got {str(dtype).removeprefix('torch.')}",
    ):
        step(**{name: torch.zeros(X.shape, dtype=dtype)})


@of_tensors
def test_tensors_of_a_step_must_be_dense(name: str) -> None:
    with refuses(TypeError, f"{name} must be a dense", "sparse_coo"):
        step(**{name: X.to_sparse()})


@pytest.mark.parametrize("shape", [(), (4,), (4, 3, 1, 1, 1, 1)])
def test_adv_must_have_two_to_five_axes(shape: tuple[int, ...]) -> None:
    x = torch.zeros(shape)
    with refuses(ValueError, "adv must have 2 to 5 axes", f"got shape {shape}"):
        pgd_step(x, x, x, eps=0.1, alpha=0.05)


@like_adv
@pytest.mark.parametrize("shape", [(4, 3, 5), (3, 3, 5, 5), (1, 3, 5, 5), (4, 75), ()])
def test_tensors_of_a_step_must_have_the_shape_of_adv(name: str, shape: tuple[int, ...]) -> None:
    with refuses(ValueError, f"{name} must have shape [4, 3, 5, 5] like adv", f"got {list(shape)}"):
        step(**{name: torch.zeros(shape)})


@like_adv
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_tensors_of_a_step_must_have_the_dtype_of_adv(name: str, dtype: torch.dtype) -> None:
    with refuses(
        TypeError, f"{name} must be float32 like adv", f"got {str(dtype).removeprefix('torch.')}"
    ):
        step(**{name: X.to(dtype)})


@like_adv
def test_tensors_of_a_step_must_be_on_the_device_of_adv(name: str) -> None:
    with refuses(ValueError, f"{name} must be on cpu like adv", "got meta"):
        step(**{name: X.to("meta")})


def test_out_must_not_require_a_gradient() -> None:
    out = torch.empty_like(X).requires_grad_()
    with refuses(ValueError, "out must not require a gradient", "out.detach()"):
        step(out=out)
    with torch.no_grad():
        assert step(out=out) is out


def test_a_refused_step_leaves_out_alone() -> None:
    out = torch.full_like(X, 7.0)
    for change in ({"eps": -1.0}, {"grad": X[:2]}, {"bounds": (1, 0)}, {"norm": "l1"}):
        with pytest.raises(ValueError, match=next(iter(change))):
            step(out=out, **change)
    assert (out == 7.0).all()


# ------------------------------------------------------------------------------- numbers

NOT_REAL = [(True, "bool"), ("0", "str"), (None, "NoneType"), (1j, "complex"), ([0.1], "list")]
NOT_REAL += [(torch.tensor(0.1), "Tensor"), (np.array(0.1), "ndarray")]
NAN, INF = float("nan"), float("inf")


@of_all
@pytest.mark.parametrize(("value", "kind"), NOT_REAL)
def test_eps_must_be_a_real_number(function: Callable, value: object, kind: str) -> None:
    with refuses(TypeError, "eps must be a real number", f"got {kind}"):
        function(eps=value)


@of_all
@pytest.mark.parametrize("value", [-1e-9, -1, NAN, INF, -INF])
def test_eps_must_be_finite_and_not_negative(function: Callable, value: float) -> None:
    with refuses(ValueError, "eps must be finite and at least 0", f"got {value}"):
        function(eps=value)


@pytest.mark.parametrize("kind", [PGD, FGSM])
def test_eps_must_not_be_of_other_units_than_the_images(kind: type[PGD]) -> None:
    with refuses(ValueError, "eps must be at most the width of bounds, 1, got 8", "is it 8/255?"):
        kind(MODEL, eps=8)
    with refuses(ValueError, "at most the width of bounds, 0.6, got 0.7"):
        kind(MODEL, eps=0.7, bounds=(-0.4, 0.2))
    for eps, bounds in ((1, (0.0, 1.0)), (0.6, (-0.4, 0.2)), (8, (0, 255)), (8, (0.0, INF))):
        assert kind(MODEL, eps=eps, bounds=bounds).eps == eps
    assert PGD(MODEL, eps=8, norm="l2").eps == 8


@of_steps
@pytest.mark.parametrize(("value", "kind"), NOT_REAL)
def test_alpha_must_be_a_real_number(function: Callable, value: object, kind: str) -> None:
    with refuses(TypeError, "alpha must be a real number", f"got {kind}"):
        function(alpha=value)


@of_steps
@pytest.mark.parametrize("value", [NAN, INF, -INF, 10**400])
def test_alpha_must_be_finite(function: Callable, value: float) -> None:
    with refuses(ValueError, "alpha must be finite", f"got {value}"[:20]):
        function(alpha=value)


def test_the_alpha_of_an_attack_must_not_be_negative() -> None:
    with refuses(ValueError, "alpha must be at least 0", "got -0.1", "targeted=True descends"):
        PGD(MODEL, alpha=-0.1)
    assert not torch.equal(step(alpha=-0.05), X)


@pytest.mark.parametrize("value", [np.float64(0.1), np.float32(0.1), 1, np.int64(1)])
def test_any_real_number_will_do(value: Any) -> None:
    expected = step(eps=float(value), alpha=float(value), bounds=(-float(value), 2.0))
    assert torch.equal(step(eps=value, alpha=value, bounds=[-value, 2]), expected)


@of_steps
@pytest.mark.parametrize("value", ["l1", "Linf", "", 2, INF, None])
def test_norm_must_be_known(function: Callable, value: object) -> None:
    with refuses(ValueError, "norm must be one of ('linf', 'l2')", f"got {value!r}"):
        function(norm=value)


@of_all
@pytest.mark.parametrize(
    "value",
    [1.0, None, "01", (1.0,), (0.0, 0.5, 1.0), {0.0, 1.0}, torch.tensor([0.0, 1.0]), np.eye(2)],
    ids=repr,
)
def test_bounds_must_be_a_pair(function: Callable, value: object) -> None:
    with refuses(TypeError, "bounds must be a pair of real numbers", "got "):
        function(bounds=value)


@of_all
@pytest.mark.parametrize(
    ("value", "kind"),
    [(("0", 1.0), "str"), ((0.0, None), "NoneType"), ((False, True), "bool"), ((0, 1j), "complex")],
)
def test_bounds_must_be_real_numbers(function: Callable, value: object, kind: str) -> None:
    with refuses(TypeError, "bounds must be a real number", f"got {kind}"):
        function(bounds=value)


@of_all
@pytest.mark.parametrize("value", [(1.0, 0.0), (0.5, 0.5), (NAN, 1.0), (0.0, NAN), (INF, INF)])
def test_bounds_must_rise(function: Callable, value: tuple[float, float]) -> None:
    with refuses(ValueError, "bounds must be the lower and then the higher one", f"got {value}"):
        function(bounds=value)


# ------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("value", "kind"), [(True, "bool"), (3.0, "float"), ("3", "str"), (None, "NoneType")]
)
def test_steps_must_be_an_integer(value: object, kind: str) -> None:
    with refuses(TypeError, "steps must be an integer", f"got {kind}"):
        PGD(MODEL, steps=value)


def test_steps_must_not_be_negative() -> None:
    with refuses(ValueError, "steps must be at least 0", "got -1"):
        PGD(MODEL, steps=-1)
    assert PGD(MODEL, steps=np.int64(3)).steps == 3


@pytest.mark.parametrize(
    ("kind", "name"),
    [(PGD, "random_start"), (PGD, "targeted"), (PGD, "early_stop"), (FGSM, "targeted")],
)
@pytest.mark.parametrize(
    ("value", "came"), [(1, "int"), ("yes", "str"), (None, "NoneType"), (LABELS, "Tensor")]
)
def test_switches_must_be_bools(kind: type[PGD], name: str, value: object, came: str) -> None:
    with refuses(TypeError, f"{name} must be a bool", f"got {came}"):
        kind(MODEL, **{name: value})


@of_loops
@pytest.mark.parametrize(("value", "kind"), [(None, "NoneType"), (X, "Tensor"), ("net", "str")])
def test_model_must_be_callable(function: Callable, value: object, kind: str) -> None:
    with refuses(TypeError, "model must be callable", f"got {kind}"):
        function(model=value)


@of_loops
@pytest.mark.parametrize(("value", "kind"), [("ce", "str"), (X, "Tensor"), (0, "int")])
def test_loss_must_be_callable(function: Callable, value: object, kind: str) -> None:
    with refuses(TypeError, "loss must be callable", f"got {kind}"):
        function(loss=value)


@pytest.mark.parametrize(
    ("value", "kind"), [(3, "int"), (np.random.default_rng(0), "Generator"), (torch, "module")]
)
def test_generator_must_be_one_of_torch(value: object, kind: str) -> None:
    with refuses(TypeError, "generator must be a torch.Generator or None", f"got {kind}"):
        PGD(MODEL, generator=value)
