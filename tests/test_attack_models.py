"""What an attack leaves of the model, the modes of torch it works under, and regularizers."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import networks
import pytest
import spectral_networks
import torch
from attack_cases import (
    NUM_CLASSES,
    PIXELS,
    Counting,
    assert_untouched,
    classes,
    images,
    smooth_model,
    stateful_model,
)
from torch import Tensor, nn
from torch.nn import functional as F

from selkern import SelectivityRegularizer, SpectralRegularizer
from selkern import reference as plain
from selkern.attacks import FGSM, PGD
from selkern.reference import attacks as reference

STEPS: dict[str, Any] = {"eps": 0.2, "alpha": 0.07, "steps": 4, "random_start": False}
ATTACKS: dict[str, Callable[..., PGD]] = {
    "fgsm": lambda model, **options: FGSM(model, 0.1, **options),
    "pgd": lambda model, **options: PGD(model, **STEPS, **options),
    "early_stop": lambda model, **options: PGD(model, **STEPS, early_stop=True, **options),
    "l2": lambda model, **options: PGD(model, 1.0, 0.3, norm="l2", **options),
}
of_attacks = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)


class Unhappy(Exception):
    """What a model or a loss raises in the middle of an attack."""


# ------------------------------------------------------------------------------- left as it was


@of_attacks
def test_the_model_is_left_as_it_was(attack: Callable[..., PGD]) -> None:
    model = stateful_model()
    modes = [module.training for module in model.modules()]
    assert True in modes
    assert False in modes
    with assert_untouched(model):
        adv = attack(model)(images(), classes())
    assert not torch.equal(adv, images())


@of_attacks
def test_the_model_is_attacked_in_eval_mode(attack: Callable[..., PGD]) -> None:
    seen: list[bool] = []
    model = stateful_model()
    for module in model.modules():
        module.register_forward_hook(lambda module, *_: seen.append(module.training))
    torch.manual_seed(3)
    adv = attack(model)(images(), classes())
    assert seen
    assert not any(seen)
    torch.manual_seed(3)
    expected = attack(copy.deepcopy(model).eval())(images(), classes())
    assert torch.equal(adv, expected)


@of_attacks
def test_a_model_that_raises_is_left_as_it_was(attack: Callable[..., PGD]) -> None:
    model = stateful_model()

    def raise_in_eval(module: nn.Module, *_: object) -> None:
        if not module.training:
            raise Unhappy

    model.dropout.register_forward_hook(raise_in_eval)
    with assert_untouched(model), pytest.raises(Unhappy):
        attack(model)(images(), classes())


@of_attacks
def test_a_loss_that_raises_leaves_the_model_as_it_was(attack: Callable[..., PGD]) -> None:
    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        raise Unhappy

    model = stateful_model()
    labels = model.eval()(images()).argmax(1)
    model = stateful_model()
    with assert_untouched(model), pytest.raises(Unhappy):
        attack(model, loss=loss)(images(), labels)


@of_attacks
def test_a_refused_call_leaves_the_model_as_it_was(attack: Callable[..., PGD]) -> None:
    model = stateful_model()
    with assert_untouched(model), pytest.raises(ValueError, match="labels must be -100 or in"):
        attack(model)(images(), torch.full((8,), 99))
    with assert_untouched(model), pytest.raises(ValueError, match="images must be within bounds"):
        attack(model)(images() + 1, classes())


def test_modes_may_change_between_attacks() -> None:
    model = stateful_model()
    attack = ATTACKS["pgd"](model)
    attack(images(), classes())
    model.eval()
    with assert_untouched(model):
        attack(images(), classes())
    assert not any(module.training for module in model.modules())


# ------------------------------------------------------------------------------- modes of torch

MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "grad": torch.enable_grad,
}


@of_attacks
@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_gradients_are_taken_whatever_the_mode(
    mode: Callable[[], AbstractContextManager[Any]], attack: Callable[..., PGD]
) -> None:
    model = stateful_model()
    torch.manual_seed(3)
    expected = attack(model)(images(), classes())
    with mode(), assert_untouched(model):
        recording = torch.is_grad_enabled()
        torch.manual_seed(3)
        adv = attack(model)(images(), classes())
        assert torch.is_grad_enabled() == recording
    assert torch.equal(adv, expected)
    assert not adv.is_inference()
    F.cross_entropy(model(adv), classes()).backward()


@of_attacks
def test_autocast_lowers_the_model_but_not_the_images(attack: Callable[..., PGD]) -> None:
    model, x = stateful_model(torch.float32), images(dtype=torch.float32)
    seen: set[torch.dtype] = set()

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        seen.add(logits.dtype)
        return F.cross_entropy(logits.float(), labels, reduction="sum")

    labels = copy.deepcopy(model).eval()(x).argmax(1)
    with torch.autocast("cpu", torch.bfloat16), assert_untouched(model):
        adv = attack(model, loss=loss)(x, labels)
        assert attack(model)(x, labels).dtype == torch.float32
    assert seen == {torch.bfloat16}
    assert adv.dtype == torch.float32
    assert not torch.equal(adv, x)


@of_attacks
def test_a_compiled_model_is_attacked_like_itself(attack: Callable[..., PGD]) -> None:
    model = stateful_model()
    compiled = torch.compile(model, backend="eager")
    torch.manual_seed(3)
    expected = attack(model)(images(), classes())
    with assert_untouched(model), assert_untouched(compiled):
        torch.manual_seed(3)
        adv = attack(compiled)(images(), classes())
    torch.testing.assert_close(adv, expected, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("fresh_compiler")
def test_a_model_compiled_by_inductor() -> None:
    model, x = stateful_model(torch.float32), images(dtype=torch.float32)
    compiled = torch.compile(model)
    with assert_untouched(model), torch.no_grad():
        adv = PGD(compiled, 1.0, 0.3, 4, random_start=False, norm="l2")(x, classes())
    expected = PGD(model, 1.0, 0.3, 4, random_start=False, norm="l2")(x, classes())
    torch.testing.assert_close(adv, expected, rtol=0, atol=1e-5)


@of_attacks
def test_a_model_may_be_a_plain_function(attack: Callable[..., PGD]) -> None:
    model = smooth_model()
    counting = Counting(model)
    torch.manual_seed(3)
    adv = attack(counting)(images(), classes())
    torch.manual_seed(3)
    assert torch.equal(adv, attack(model)(images(), classes()))
    assert counting.calls > 0


# ------------------------------------------------------------------------------- regularizers


def selectivity_objective(
    backend: str = "selkern",
) -> tuple[networks.Network, SelectivityRegularizer, Callable[[Tensor, Tensor], Tensor]]:
    torch.manual_seed(0)
    model = networks.Network().double()
    reg = SelectivityRegularizer(model, networks.NUM_CLASSES, alpha=-20.0, backend=backend)

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, reduction="sum") + reg(labels)

    return model, reg, loss


@pytest.fixture
def double_batch(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return batch[0].double(), batch[1]


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("backend", ["selkern", "reference"])
def test_an_attack_on_the_objective_with_selectivity(
    double_batch: tuple[Tensor, Tensor], backend: str, norm: str
) -> None:
    model, reg, loss = selectivity_objective(backend)

    def plain_loss(outputs: tuple[list[Tensor], Tensor], labels: Tensor) -> Tensor:
        activations, logits = outputs
        index = plain.mean_selectivity(activations, labels, networks.NUM_CLASSES)
        return F.cross_entropy(logits, labels, reduction="sum") + 20.0 * index

    options = STEPS | {"norm": norm}
    with reg:
        adv = PGD(model, **options, loss=loss)(*double_batch)
    definition = reference.PGD(
        lambda x: networks.plain_activations(model, x), **options, loss=plain_loss
    )
    torch.testing.assert_close(adv, definition(*double_batch), rtol=0, atol=1e-9)
    unregularized = PGD(model, **options)(*double_batch)
    assert (adv - unregularized).abs().max() > 1e-3


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("backend", ["selkern", "reference"])
def test_an_attack_on_the_objective_with_spectra(backend: str, norm: str) -> None:
    torch.manual_seed(0)
    model = spectral_networks.Network().double()
    x, labels = spectral_networks.images(40).double(), torch.arange(40) % 3
    options = STEPS | {"norm": norm}

    def plain_loss(outputs: tuple[list[Tensor], Tensor], labels: Tensor) -> Tensor:
        activations, logits = outputs
        penalty = 10.0 * plain.spectral_loss(activations)
        return F.cross_entropy(logits, labels, reduction="sum") + penalty

    with SpectralRegularizer(model, beta=10.0, backend=backend) as reg:
        attack = PGD(
            model,
            **options,
            loss=lambda logits, y: F.cross_entropy(logits, y, reduction="sum") + reg(),
        )
        adv = attack(x, labels)
    definition = reference.PGD(
        lambda x: (model.activations(x), model(x)), **options, loss=plain_loss
    )
    torch.testing.assert_close(adv, definition(x, labels), rtol=0, atol=1e-9)
    unregularized = PGD(model, **options)(x, labels)
    assert (adv - unregularized).abs().max() > 1e-3


@pytest.mark.parametrize("regularized", [False, True])
def test_a_regularized_training_step_is_the_same_after_an_attack(
    double_batch: tuple[Tensor, Tensor], regularized: bool
) -> None:
    model, reg, loss = selectivity_objective()
    x, labels = double_batch
    with reg:
        reg.alpha = -2.0
        adv = PGD(model, **STEPS, loss=loss if regularized else None)(x, labels)
        for inputs in (x, adv):
            expected, expected_gradients = networks.expected_step(model, (inputs, labels))
            logits = model(inputs)
            penalty = reg(labels)
            torch.testing.assert_close(penalty, expected)
            gradients = networks.gradients(F.cross_entropy(logits, labels) + penalty, model)
            networks.assert_same_gradients(gradients, expected_gradients)


def test_what_a_training_step_captured_is_that_of_its_own_forward(
    double_batch: tuple[Tensor, Tensor],
) -> None:
    model, reg, _ = selectivity_objective()
    x, labels = double_batch
    with reg:
        reg.alpha = -2.0
        logits = model(x)
        penalty = reg(labels)
        FGSM(model)(x, labels)
        loss = F.cross_entropy(logits, labels) + penalty
        expected, expected_gradients = networks.expected_step(model, double_batch)
        torch.testing.assert_close(penalty, expected)
        networks.assert_same_gradients(networks.gradients(loss, model), expected_gradients)


# ------------------------------------------------------------------------------- memory


def live() -> tuple[int, int]:
    """Number of tensors that are alive, and their bytes."""
    gc.collect()
    return len(tensors()), sum(tensor.untyped_storage().nbytes() for tensor in tensors())


def tensors() -> list[Tensor]:
    return [item for item in gc.get_objects() if issubclass(type(item), Tensor)]


@pytest.mark.parametrize("regularized", [False, True])
def test_nothing_adds_up_over_200_steps_of_adversarial_training(
    batch: tuple[Tensor, Tensor], regularized: bool
) -> None:
    x, labels = batch
    torch.manual_seed(0)
    model = networks.Network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    with SelectivityRegularizer(model, networks.NUM_CLASSES, alpha=-2.0) as reg:
        loss = (lambda logits, y: F.cross_entropy(logits, y) + reg(y)) if regularized else None
        attack = PGD(model, 0.1, 0.05, 2, early_stop=True, loss=loss)

        def step() -> None:
            adv = attack(x, labels)
            optimizer.zero_grad()
            (F.cross_entropy(model(adv), labels) + reg(labels)).backward()
            optimizer.step()

        for _ in range(3):
            step()
        before = live()
        for _ in range(200):
            step()
        assert live() == before


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_attack_frees_all_but_its_result_without_the_garbage_collector(norm: str) -> None:
    model, x, labels = smooth_model(), images(), classes()
    attack = PGD(model, norm=norm, early_stop=True)
    attack(x, labels)
    before, _ = live()
    gc.disable()
    try:
        adv = attack(x, labels)
        assert len(tensors()) == before + 1
    finally:
        gc.enable()
    assert adv.shape == x.shape


def test_a_forward_in_training_mode_would_not_leave_the_model_as_it_was() -> None:
    model = stateful_model()
    before = copy.deepcopy(model.state_dict())
    model(images())
    changed = [name for name, x in model.state_dict().items() if not torch.equal(x, before[name])]
    assert changed == ["norm.running_mean", "norm.running_var", "norm.num_batches_tracked"]


class Merging(nn.Linear):
    """A layer that keeps another weight in eval mode, as low-rank adapters do."""

    def train(self, mode: bool = True) -> Merging:
        if mode != self.training:
            with torch.no_grad():
                self.weight *= 0.5 if mode else 2.0
        return super().train(mode)


def test_modules_with_a_train_of_their_own_stay_as_they_were() -> None:
    model = nn.Sequential(nn.Flatten(), Merging(PIXELS, NUM_CLASSES))
    with assert_untouched(model):
        PGD(model)(images(dtype=torch.float32), classes())
