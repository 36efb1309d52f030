"""Attacks on a GPU: steps on images of the size of ImageNet's, and a whole attack."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

import selkern

from .. import steps
from ..work import COPY, Outcome
from . import inputs
from .attack_steps import VALUE_TOLERANCE, attack_inputs, sizes
from .attacks import PGDAttack
from .streaming import Streaming, streaming_works

__all__ = ["L2_STEPS", "LINF_STEPS", "AttackStep", "CudaPGDAttack"]

IMAGE_SHAPE = (3, 224, 224)


class AttackStep(Streaming):
    compiled_at = (IMAGE_SHAPE, torch.float32)
    norm: ClassVar[str]
    # Images in bfloat16 are rounded by 2e-3, and a step is 8e-3 long.
    rounded_tolerance: ClassVar[float] = 5e-3

    def make_inputs(self) -> list[Tensor]:
        tensors = attack_inputs((self.batch, *self.shape), self.source, self.dtype)
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return [tensor.to(memory_format=layout) for tensor in tensors]

    def moved_bytes(self) -> int:
        adv, grad, images = self.inputs[0]
        return inputs.num_bytes([adv, grad, images, adv])

    def as_outcome(self, result: Tensor) -> Outcome:
        return Outcome(result)

    def fused_function(self) -> Callable[..., Any]:
        eps, alpha = self._sizes
        return partial(selkern.attacks.pgd_step, eps=eps, alpha=alpha, norm=self.norm)

    def page_function(self) -> Callable[..., Any]:
        return steps.with_sizes(steps.PAGES[self.norm], *self._sizes)

    def careful_function(self) -> Callable[..., Any]:
        return steps.with_sizes(steps.CAREFUL[self.norm], *self._sizes)

    @property
    def _sizes(self) -> tuple[float, float]:
        return sizes(self.norm, self.inputs[0][0][0].numel())

    def value_tolerance_of(self, label: str) -> float:
        return VALUE_TOLERANCE if self.dtype == torch.float32 else self.rounded_tolerance

    def expected(self, label: str) -> Outcome:
        if label == COPY:
            return super().expected(label)
        return Outcome(self.page_function()(*(x.double() for x in self.inputs[0])))


class LinfStep(AttackStep):
    operation = "pgd_step_linf"
    norm = "linf"


class L2Step(AttackStep):
    operation = "pgd_step_l2"
    norm = "l2"
    # Rivals round several times; the largest step of an element is 3e-2 long.
    rounded_tolerance = 8e-3

    def moved_bytes(self) -> int:
        # The norms of a sample come before its first new element.
        return super().moved_bytes() + inputs.num_bytes(self.inputs[0])


class CudaPGDAttack(PGDAttack):
    # Convolutions in TF32 turn more signs.
    value_tolerance = 1.5e-2
    gradient_tolerance = 1e-2


LINF_STEPS = tuple(streaming_works((IMAGE_SHAPE,), operations=(LinfStep,)))
L2_STEPS = tuple(streaming_works((IMAGE_SHAPE,), operations=(L2Step,)))
