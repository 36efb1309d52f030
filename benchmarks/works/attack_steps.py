"""One step of a gradient attack on images of the size of ImageNet's."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

import selkern

from .. import steps
from ..compare import Comparison, Quartiles
from ..work import Outcome, Target, Work, contender
from . import inputs

__all__ = [
    "ALPHA",
    "EPS",
    "VALUE_TOLERANCE",
    "AttackStep",
    "L2Step",
    "LinfStep",
    "SmallLinfStep",
    "attack_inputs",
    "sizes",
]

EPS = 8 / 255
ALPHA = 2 / 255
VALUE_TOLERANCE = 5e-7
"""Some roundings: at the edge of the ball it is a unit in the last place."""

FLOOR = "add of two tensors into a third"
FRESH_FLOOR = "add of two tensors into a fresh one"
IN_PLACE = "selkern.attacks.pgd_step in place"
INTO_ANOTHER = "selkern.attacks.pgd_step into another tensor"
FRESH = "selkern.attacks.pgd_step into a fresh tensor"
PAGE = "eager page"
CAREFUL = "eager careful"
KEPT = "eager careful, bounds of the attack kept"
COMPILED = "eager page, compiled"
COMPILED_IN_PLACE = "eager page, compiled, in place"


def sizes(norm: str, elements: int) -> tuple[float, float]:
    """Radius and length of a step which moves elements as far with either norm."""
    scale = 1.0 if norm == "linf" else math.sqrt(elements)
    return EPS * scale, ALPHA * scale


def attack_inputs(
    shape: tuple[int, ...], source: torch.Generator, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    """Where an attack is, a gradient and images; half of the samples are outside of either ball."""
    images = inputs.uniform(*shape, source=source)
    reach = torch.linspace(0.5, 1.5, shape[0], device=source.device)
    reach = reach.mul_(math.sqrt(3) * EPS).view(-1, *[1] * (len(shape) - 1))
    noise = inputs.uniform(*shape, source=source).mul_(2).sub_(1).mul_(reach)
    adv = noise.add_(images).clamp_(0, 1)
    grad = inputs.normal(*shape, source=source)
    return adv.to(dtype), grad.to(dtype), images.to(dtype)


class AttackStep(Work):
    """Contenders in place walk on from repetition to repetition: passes take as long at the edge.

    Each is checked from the same start.
    """

    rounds = 30
    quick_rounds = 5
    value_tolerance = VALUE_TOLERANCE
    norm: ClassVar[str]
    shape: ClassVar[tuple[int, ...]] = (128, 3, 224, 224)

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        self.start, self.grad, self.images = attack_inputs(
            self.shape, inputs.generator(device=device)
        )
        self.adv = self.start.clone()
        self.buffer = torch.empty_like(self.start)
        self.eps, self.alpha = sizes(self.norm, self.start[0].numel())

    def moved_bytes(self) -> int:
        return 4 * inputs.num_bytes([self.images])

    @contender(FLOOR, "floor")
    def add(self) -> Outcome:
        return Outcome(torch.add(self.images, self.grad, out=self.buffer))

    @contender(FRESH_FLOOR, "floor")
    def fresh_add(self) -> Outcome:
        return Outcome(self.images + self.grad)

    @contender(IN_PLACE, "selkern")
    def fused_in_place(self) -> Outcome:
        return self._fused(self.adv)

    @contender(INTO_ANOTHER, "selkern")
    def fused_into_another(self) -> Outcome:
        return self._fused(self.buffer)

    @contender(FRESH, "selkern")
    def fused_fresh(self) -> Outcome:
        return self._fused(None)

    @contender(PAGE)
    def page(self) -> Outcome:
        return self._stepped(self._page)

    @contender(CAREFUL)
    def careful(self) -> Outcome:
        step = steps.CAREFUL[self.norm]
        # A loop exchanges both tensors after each step.
        result = step(self.adv, self.grad, self.images, self.eps, self.alpha, out=self.buffer)
        return Outcome(result)

    @contender(COMPILED, compiled=True)
    def compiled_page(self) -> Outcome:
        return self._stepped(self._compiled)

    @contender(COMPILED_IN_PLACE, compiled=True)
    def compiled_in_place(self) -> Outcome:
        return self._stepped(self._compiled_in_place)

    def _fused(self, out: Tensor | None) -> Outcome:
        return Outcome(
            selkern.attacks.pgd_step(
                self.adv,
                self.grad,
                self.images,
                eps=self.eps,
                alpha=self.alpha,
                norm=self.norm,
                out=out,
            )
        )

    def _stepped(self, step: steps.Step) -> Outcome:
        return Outcome(step(self.adv, self.grad, self.images))

    @cached_property
    def _page(self) -> steps.Step:
        return steps.with_sizes(steps.PAGES[self.norm], self.eps, self.alpha)

    @cached_property
    def _compiled(self) -> steps.Step:
        return torch.compile(self._page, dynamic=False)

    @cached_property
    def _compiled_in_place(self) -> steps.Step:
        return torch.compile(steps.in_place(self._page), dynamic=False)

    def check_outcome(self, label: str) -> Outcome:
        self.adv.copy_(self.start)
        return super().check_outcome(label)

    def expected(self, label: str) -> Outcome:
        if self.contenders[label].role == "floor":
            return Outcome(self.images.double() + self.grad.double())
        return Outcome(self._expected)

    @cached_property
    def _expected(self) -> Tensor:
        return self._page(self.start.double(), self.grad.double(), self.images.double())


def _over(rival: str, own: str) -> Callable[[Comparison], Quartiles]:
    return lambda comparison: comparison.ratio(rival, own)


def _over_fastest(comparison: Comparison) -> Quartiles:
    rivals = (PAGE, CAREFUL, KEPT, COMPILED, COMPILED_IN_PLACE)
    return comparison.ratio(comparison.fastest(rivals), IN_PLACE)


NEVER_SLOWER = Target("fastest of all rivals / in place", _over_fastest, 1.0)


def _targets_of(own: str, short: str) -> tuple[Target, ...]:
    return (
        Target(f"eager page / {short}", _over(PAGE, own), 10.0),
        Target(f"eager page, compiled / {short}", _over(COMPILED, own), 2.2),
        Target(f"{short} / add of two tensors", _over(own, FLOOR), 1.4, at_least=False),
    )


class LinfStep(AttackStep):
    name = "pgd_step_linf"
    title = "pgd_step of [128, 3, 224, 224], linf"
    norm = "linf"
    targets = (
        *_targets_of(IN_PLACE, "in place"),
        *_targets_of(INTO_ANOTHER, "into another tensor"),
        Target("eager page / into a fresh tensor", _over(PAGE, FRESH), 6.0),
        NEVER_SLOWER,
    )

    @contender(KEPT)
    def careful_within_bounds(self) -> Outcome:
        result = steps.linf_within(self.adv, self.grad, self._bounds, self.alpha, self.buffer)
        return Outcome(result)

    @cached_property
    def _bounds(self) -> tuple[Tensor, Tensor]:
        return steps.linf_bounds(self.images, self.eps)


class SmallLinfStep(LinfStep):
    """A step of the whole attack on ResNet-20, which is what there was to win of it."""

    name = "pgd_step_linf_32x32"
    title = "pgd_step of [128, 3, 32, 32], linf"
    rounds = 200
    quick_rounds = 50
    shape = (128, 3, 32, 32)
    targets = (NEVER_SLOWER,)


class L2Step(AttackStep):
    name = "pgd_step_l2"
    title = "pgd_step of [128, 3, 224, 224], l2"
    norm = "l2"
    targets = (NEVER_SLOWER,)

    def moved_bytes(self) -> int:
        # The norms of a sample come before its first new element.
        return 7 * inputs.num_bytes([self.images])
