"""A whole attack on ResNet-20, and what it takes beyond its forwards and backwards."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import selkern
from selkern.study.residual import ResNet20

from .. import steps
from ..compare import Comparison, Quartiles
from ..work import Agreement, Missing, Outcome, Target, Work, contender
from . import inputs
from .attack_steps import ALPHA, EPS

__all__ = ["PGDAttack", "foolbox_attack"]

PLAIN = "forwards and backwards alone"
PLAIN_AGAIN = "forwards and backwards again"
FUSED = "selkern.attacks.PGD"
REFERENCE = "selkern.reference.attacks.PGD"
PAGE = "eager page"
FOOLBOX = "foolbox.attacks.LinfPGD"

Attack = Callable[[Tensor, Tensor], Tensor]


def page_attack(model: nn.Module, images: Tensor, labels: Tensor, step_count: int) -> Tensor:
    """The loop as a user would write it, around a step as a user would write it."""
    was_training = model.training
    model.eval()
    adv = images.clone()
    for _ in range(step_count):
        adv.requires_grad_()
        loss = F.cross_entropy(model(adv), labels)
        (grad,) = torch.autograd.grad(loss, adv)
        adv = steps.PAGES["linf"](adv.detach(), grad, images, EPS, ALPHA)
    model.train(was_training)
    return adv


def foolbox_attack(model: nn.Module, step_count: int) -> Attack:
    """The attack of foolbox with the same settings."""
    try:
        from foolbox.attacks import LinfPGD
    except ImportError as error:
        raise Missing("foolbox cannot be imported") from error
    attack = LinfPGD(abs_stepsize=ALPHA, steps=step_count, random_start=False)
    return selkern.attacks.from_foolbox(attack, model, eps=EPS)


def _percent_added(quantity: str, label: str, percent: float) -> Target:
    return Target(
        quantity,
        lambda comparison: comparison.added_percent(label, PLAIN),
        percent,
        at_least=False,
        unit="%",
    )


def _over_fastest(comparison: Comparison) -> Quartiles:
    return comparison.ratio(comparison.fastest((PAGE, REFERENCE)), FUSED)


class PGDAttack(Work):
    """Contenders attack one network, which is being trained, and begin at the images.

    Rounding turns the signs of the smallest gradients, and later steps go on from there. So
    adversarial images are compared with float64 by the mean of their differences, over eps.
    """

    name = "pgd_attack_resnet20"
    title = "whole PGD-10 attack on ResNet-20, batch 128 of 3 x 32 x 32"
    rounds = 12
    quick_rounds = 3
    # With a step more or less it is 2e-2.
    value_tolerance = 3e-3
    samples: ClassVar[int] = 128
    image_shape: ClassVar[tuple[int, ...]] = (3, 32, 32)
    step_count: ClassVar[int] = 10
    targets = (
        _percent_added("added by attacks.PGD to forwards and backwards", FUSED, 2.0),
        Target("whole attack, faster eager one / attacks.PGD", _over_fastest, 1.0),
    )

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        source = inputs.generator(device=device)
        self.images = inputs.uniform(self.samples, *self.image_shape, source=source)
        self.labels = inputs.labels(self.samples, 10, source)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(inputs.seed())
            self.model = ResNet20().to(self.device)
        self.evaluated = copy.deepcopy(self.model).eval()

    @contender(PLAIN, "plain", fits_graph=True)
    def gradients(self) -> Outcome:
        return self._gradients()

    @contender(PLAIN_AGAIN, "noise", fits_graph=True)
    def gradients_again(self) -> Outcome:
        return self._gradients()

    @contender(FUSED, "selkern", fits_graph=True)
    def fused(self) -> Outcome:
        attack = selkern.attacks.PGD(self.model, EPS, ALPHA, self.step_count, random_start=False)
        return Outcome(attack(self.images, self.labels))

    @contender(REFERENCE, fits_graph=True)
    def reference(self) -> Outcome:
        attack = selkern.reference.attacks.PGD(
            self.model, EPS, ALPHA, self.step_count, random_start=False
        )
        return Outcome(attack(self.images, self.labels))

    @contender(PAGE, fits_graph=True)
    def page(self) -> Outcome:
        return Outcome(page_attack(self.model, self.images, self.labels, self.step_count))

    @contender(FOOLBOX)
    def of_foolbox(self) -> Outcome:
        return Outcome(self._foolbox(self.images, self.labels))

    @cached_property
    def _foolbox(self) -> Attack:
        return foolbox_attack(self.model, self.step_count)

    def _gradients(self) -> Outcome:
        """As many forwards and backwards, always at the images: what nobody can leave out."""
        grad = self.images
        for _ in range(self.step_count):
            leaf = self.images.detach().requires_grad_()
            loss = F.cross_entropy(self.evaluated(leaf), self.labels, reduction="sum")
            (grad,) = torch.autograd.grad(loss, leaf)
        return Outcome(gradients=[grad])

    def expected(self, label: str) -> Outcome:
        return self._expected[0 if self.contenders[label].role in ("plain", "noise") else 1]

    @cached_property
    def _expected(self) -> tuple[Outcome, Outcome]:
        """The gradient at the images, and the attack."""
        model = copy.deepcopy(self.evaluated).double()
        leaf = self.images.double().requires_grad_()
        loss = F.cross_entropy(model(leaf), self.labels, reduction="sum")
        gradients = torch.autograd.grad(loss, leaf)
        adv = page_attack(model, leaf.detach(), self.labels, self.step_count)
        return Outcome(gradients=gradients), Outcome(adv)

    def check(self, label: str) -> Agreement:
        if self.entries[label].role in ("plain", "noise"):
            return super().check(label)
        adv = self.check_outcome(label).value
        expected = self._expected[1].value
        assert adv is not None
        assert expected is not None
        error = float((adv.double() - expected).abs().mean() / EPS)
        self._refuse(label, "value", error, self.value_tolerance)
        with torch.no_grad():
            loss = float(F.cross_entropy(self.evaluated(adv), self.labels))
        return Agreement(loss, error, None)
