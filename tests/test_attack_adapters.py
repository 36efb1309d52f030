"""Agreement with foolbox, other libraries' attacks as functions, and training with any of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from attack_cases import (
    NUM_CLASSES,
    assert_untouched,
    classes,
    images,
    smooth_model,
    stateful_model,
)
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from selkern import SelectivityRegularizer
from selkern.attacks import FGSM, PGD, from_foolbox, from_secml

foolbox = pytest.importorskip("foolbox")
fa = foolbox.attacks

TOLERANCE = {torch.float32: 5e-6, torch.float64: 1e-12}
of_dtypes = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
BOUNDS = pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 2.0)], ids=str)


def beginning_at(kind: type, start: Tensor) -> type:
    """Return foolbox's attack with a start of ours in the place of its random one."""

    class Beginning(kind):
        def get_random_start(self, x0: Any, epsilon: float) -> Any:
            return type(x0)(start.clone())

    return Beginning


def by_foolbox(
    attack: Any, model: nn.Module, x: Tensor, criterion: Any, eps: float, bounds: Any
) -> Tensor:
    wrapped = foolbox.PyTorchModel(model.eval(), bounds=bounds, device=x.device)
    return attack.run(wrapped, x, criterion, epsilon=eps)


def criterion_for(labels: Tensor, targeted: bool) -> Any:
    kind = foolbox.criteria.TargetedMisclassification if targeted else foolbox.Misclassification
    return kind(labels)


KINDS = {"linf": fa.LinfPGD, "l2": fa.L2PGD}
SETTINGS = {
    "linf": [(8 / 255, 2 / 255, 10), (0.3, 0.2, 3), (0.1, 0.5, 4), (0.25, 0.01, 1)],
    "l2": [(1.0, 0.2, 10), (4.0, 2.5, 3), (0.5, 2.0, 4), (0.25, 0.01, 1)],
}


@BOUNDS
@of_dtypes
@pytest.mark.parametrize("random_start", [False, True])
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize(
    ("norm", "setting"), [(norm, setting) for norm in KINDS for setting in SETTINGS[norm]]
)
def test_pgd_agrees_with_foolbox(
    norm: str,
    setting: tuple[float, float, int],
    targeted: bool,
    random_start: bool,
    dtype: torch.dtype,
    bounds: tuple[float, float],
) -> None:
    model, x, labels = smooth_model(dtype), images(dtype=dtype, bounds=bounds), classes()
    eps, alpha, steps = setting

    def attack(steps: int) -> Tensor:
        generator = torch.Generator().manual_seed(3)
        options: dict[str, Any] = {"norm": norm, "bounds": bounds, "targeted": targeted}
        ours = PGD(model, eps, alpha, steps, random_start, **options, generator=generator)
        return ours(x, labels)

    kind = beginning_at(KINDS[norm], attack(steps=0)) if random_start else KINDS[norm]
    theirs = kind(abs_stepsize=alpha, steps=steps, random_start=random_start)
    expected = by_foolbox(theirs, model, x, criterion_for(labels, targeted), eps, bounds)
    adv = attack(steps)
    torch.testing.assert_close(adv, expected, rtol=0, atol=TOLERANCE[dtype])
    assert (adv - x).abs().max() > 10 * TOLERANCE[dtype]


@BOUNDS
@of_dtypes
@pytest.mark.parametrize("eps", [8 / 255, 0.3])
def test_fgsm_agrees_with_foolbox(
    eps: float, dtype: torch.dtype, bounds: tuple[float, float]
) -> None:
    model, x, labels = smooth_model(dtype), images(dtype=dtype, bounds=bounds), classes()
    adv = FGSM(model, eps, bounds=bounds)(x, labels)
    expected = by_foolbox(fa.FGSM(), model, x, criterion_for(labels, False), eps, bounds)
    torch.testing.assert_close(adv, expected, rtol=0, atol=TOLERANCE[dtype])
    # foolbox's own FGSM aims at nothing.
    adv = FGSM(model, eps, bounds=bounds, targeted=True)(x, labels)
    one_step = fa.LinfPGD(abs_stepsize=eps, steps=1, random_start=False)
    expected = by_foolbox(one_step, model, x, criterion_for(labels, True), eps, bounds)
    torch.testing.assert_close(adv, expected, rtol=0, atol=TOLERANCE[dtype])


def test_both_begin_where_the_same_draw_would_have_led() -> None:
    x, labels, eps = images(), classes(), 0.4
    noise = torch.rand(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(3))
    kind = beginning_at(fa.LinfPGD, x + eps * (2 * noise - 1))
    theirs = kind(steps=5, random_start=True)
    model = smooth_model()
    expected = by_foolbox(theirs, model, x, criterion_for(labels, False), eps, (0.0, 1.0))
    generator = torch.Generator().manual_seed(3)
    # foolbox's step is a part of the ball, 0.01 / 0.3 of it.
    adv = PGD(model, eps, eps * 0.01 / 0.3, 5, generator=generator)(x, labels)
    torch.testing.assert_close(adv, expected, rtol=0, atol=1e-12)


# ------------------------------------------------------------------------------- from_foolbox

FOOLBOX: dict[str, Callable[[], Any]] = {
    "linf": lambda: fa.LinfPGD(steps=5, random_start=False),
    "l2": lambda: fa.L2PGD(steps=5, random_start=False),
    "fgsm": lambda: fa.FGSM(),
    "minimal": lambda: fa.L2DeepFoolAttack(steps=5),
}
of_foolbox = pytest.mark.parametrize("kind", FOOLBOX.values(), ids=FOOLBOX)


@of_foolbox
@BOUNDS
def test_from_foolbox_gives_what_a_call_by_hand_gives(
    kind: Callable[[], Any], bounds: tuple[float, float]
) -> None:
    model = stateful_model(torch.float32)
    x, labels = images(dtype=torch.float32, bounds=bounds), classes()
    with assert_untouched(model):
        adv = from_foolbox(kind(), model, eps=0.1, bounds=bounds)(x, labels)
    wrapped = foolbox.PyTorchModel(model.eval(), bounds=bounds)
    _, expected, _ = kind()(wrapped, x, labels, epsilons=0.1)
    assert torch.equal(adv, expected)
    assert not adv.requires_grad
    assert (adv - x).abs().max() > 1e-3
    assert torch.equal(x, images(dtype=torch.float32, bounds=bounds))


@of_foolbox
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_from_foolbox_takes_gradients_whatever_the_mode(
    kind: Callable[[], Any], mode: Callable[[], Any]
) -> None:
    model = stateful_model(torch.float32)
    attack = from_foolbox(kind(), model, eps=0.1)
    expected = attack(images(dtype=torch.float32), classes())
    with mode(), assert_untouched(model):
        adv = attack(images(dtype=torch.float32), classes())
    assert torch.equal(adv, expected)
    assert not adv.is_inference()


def test_from_foolbox_takes_other_criteria_in_the_place_of_labels() -> None:
    model, x = stateful_model(torch.float32), images(dtype=torch.float32)
    targets = foolbox.criteria.TargetedMisclassification(classes())
    attack = fa.LinfPGD(steps=5, random_start=False)
    adv = from_foolbox(attack, model, eps=0.1)(x, targets)
    ours = PGD(model, 0.1, 0.1 * 0.01 / 0.3, 5, random_start=False, targeted=True)
    torch.testing.assert_close(adv, ours(x, classes()), rtol=0, atol=2e-6)


@pytest.mark.parametrize("library", ["foolbox", "secml"])
def test_an_attack_that_raises_leaves_the_model_as_it_was(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = stateful_model(torch.float32), images(dtype=torch.float32)
    wraps, depth = _adapter(library, monkeypatch)

    def raises(wrapped: Any, *_: object, **__: object) -> None:
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())
        raise RuntimeError(depth)

    with assert_untouched(model), pytest.raises(RuntimeError, match=depth):
        wraps(raises, model)(x, classes())


def _adapter(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[Callable[[Any, nn.Module], Callable[[Tensor, Tensor], Tensor]], str]:
    if library == "secml":
        install_stand_in(monkeypatch)
        return from_secml, "in secml"
    return lambda attack, model: from_foolbox(attack, model, eps=0.1), "in foolbox"


# ------------------------------------------------------------------------------- from_secml


class Wrapped:
    """Stands in for secmlt's BasePyTorchClassifier."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def decision_function(self, x: Tensor) -> Tensor:
        return self.model(x)


def install_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the parts of secmlt that the adapter imports be found."""
    name = "secmlt"
    monkeypatch.setitem(sys.modules, name, ModuleType(name))
    for part in ("models", "pytorch", "base_pytorch_nn"):
        name = f"{name}.{part}"
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules[name].BasePyTorchClassifier = Wrapped


def signed_gradient_attack(model: Wrapped, batches: DataLoader) -> DataLoader:
    """Do as secmlt's attacks: a loader in, a loader of adversarial images and labels out."""
    results = []
    for x, labels in batches:
        leaf = x.clone().requires_grad_()
        loss = F.cross_entropy(model.decision_function(leaf), labels)
        # secmlt's own loop calls backward too, which would reach the parameters.
        loss.backward()
        results.append(TensorDataset((x + 0.1 * leaf.grad.sign()).clamp(0, 1), labels))
    return DataLoader(results[0], batch_size=len(results[0]))


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_from_secml_hands_over_one_batch_and_takes_one_back(
    mode: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    install_stand_in(monkeypatch)
    model = stateful_model(torch.float32)
    attack = from_secml(signed_gradient_attack, model)
    expected = FGSM(model, 0.1)(images(dtype=torch.float32), classes())
    with mode(), assert_untouched(model):
        x = images(dtype=torch.float32)
        adv = attack(x, classes())
    torch.testing.assert_close(adv, expected, rtol=0, atol=2e-7)
    assert not adv.requires_grad
    assert torch.equal(x, images(dtype=torch.float32))


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_secml_where_it_is_installed(mode: Callable[[], Any]) -> None:
    try:
        from secmlt.adv.backends import Backends
        from secmlt.adv.evasion.perturbation_models import LpPerturbationModels
        from secmlt.adv.evasion.pgd import PGD as SecmlPGD
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"secmlt cannot be imported: {error}")
    model, x, labels = stateful_model(torch.float32), images(dtype=torch.float32), classes()
    attack = SecmlPGD(
        perturbation_model=LpPerturbationModels.LINF,
        epsilon=0.1,
        num_steps=3,
        step_size=0.05,
        random_start=False,
        backend=Backends.NATIVE,
    )
    with mode(), assert_untouched(model):
        adv = from_secml(attack, model)(images(dtype=torch.float32), classes())
    assert not adv.requires_grad
    assert (adv - x).abs().max() <= 0.1 + 1e-6
    assert adv.min() >= 0
    assert adv.max() <= 1
    model.eval()
    assert F.cross_entropy(model(adv), labels) > F.cross_entropy(model(x), labels)


# ------------------------------------------------------------------------------- refusals

MODEL = smooth_model(torch.float32)
X = images(4, torch.float32)


OF_BOTH: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"attack": None}, TypeError, "attack must be callable, got NoneType"),
    ({"model": lambda x: x}, TypeError, "model must be a torch.nn.Module, got function"),
    ({"images": X.byte()}, TypeError, "images must be float16.*, got uint8"),
    ({"images": [1]}, TypeError, "images must be a torch.Tensor, got list"),
    ({"labels": torch.zeros(3).long()}, ValueError, "labels must have shape .4., got .3."),
    ({"labels": torch.zeros(4)}, TypeError, "labels must be int64 or int32, got float32"),
]
# secml's attacks have a radius and bounds of their own.
OF_FOOLBOX: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"images": X + 1}, ValueError, "images must be within bounds"),
    ({"eps": -0.1}, ValueError, "eps must be finite and at least 0, got -0.1"),
    ({"eps": [0.1, 0.2]}, TypeError, "eps must be a real number, got list"),
    ({"bounds": (1.0, 0.0)}, ValueError, "bounds must be the lower and then the higher one"),
]


def attack_with(adapt: Callable[..., Any], used: dict[str, Any], change: dict[str, Any]) -> Tensor:
    used = {"attack": fa.LinfPGD(), "model": MODEL} | used
    given = {"images": X, "labels": classes(4)} | change
    used |= {key: given.pop(key) for key in change if key not in ("images", "labels")}
    return adapt(**used)(**given)


@pytest.mark.parametrize(("change", "error", "message"), [*OF_BOTH, *OF_FOOLBOX])
def test_from_foolbox_refuses(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        attack_with(from_foolbox, {"eps": 0.1, "bounds": (0.0, 1.0)}, change)


@pytest.mark.parametrize(("change", "error", "message"), OF_BOTH)
def test_from_secml_refuses(
    change: dict[str, Any],
    error: type[Exception],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install_stand_in(monkeypatch)
    with pytest.raises(error, match=message):
        attack_with(from_secml, {}, change)


def test_labels_of_32_bits_serve_other_libraries() -> None:
    attack = from_foolbox(fa.FGSM(), MODEL, eps=0.1)
    assert torch.equal(attack(X, classes(4).int()), attack(X, classes(4)))


# ------------------------------------------------------------------------------- any attack

ANY: dict[str, Callable[[nn.Module], Callable[[Tensor, Tensor], Tensor]]] = {
    "fgsm": lambda model: FGSM(model, 0.1),
    "pgd": lambda model: PGD(model, 0.1, 0.05, 3),
    "foolbox": lambda model: from_foolbox(fa.LinfPGD(steps=3), model, eps=0.1),
    "secml": lambda model: from_secml(signed_gradient_attack, model),
    "function": lambda model: lambda images, labels: (images + 0.1).clamp(0, 1),
}


@pytest.mark.parametrize("make", ANY.values(), ids=ANY)
def test_any_attack_serves_in_a_training_step(
    make: Callable[[nn.Module], Callable[[Tensor, Tensor], Tensor]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install_stand_in(monkeypatch)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(75, 20), nn.ReLU(), nn.Linear(20, NUM_CLASSES))
    x, labels = images(32, torch.float32), classes(32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    attack = make(model)

    def train(reg: SelectivityRegularizer) -> float:
        adv = attack(x, labels)
        assert (adv - x).abs().max() > 0.05
        optimizer.zero_grad()
        loss = F.cross_entropy(model(adv), labels) + reg(labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    with SelectivityRegularizer(model, NUM_CLASSES, alpha=-1.0) as reg:
        losses = [train(reg) for _ in range(30)]
    assert losses[-1] < 0.8 * losses[0]
