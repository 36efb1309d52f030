"""What the regularizer adds to the ReLUs of ResNet-20, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

import selkern

from ..losses import mean_selectivity_page
from ..work import Outcome, Target, Work, contender
from . import inputs

__all__ = ["ReLUStack"]

ALPHA = -2.0
NUM_CLASSES = 10

PLAIN = "plain"
PLAIN_AGAIN = "plain again"
COMPILED_PLAIN = "plain, compiled"
FUSED = "selkern.relu_with_mean"
UNFUSED = "selkern.mean_selectivity on plain ReLUs"
PAGE = "eager page"
CAREFUL = "eager careful"

Stack = Callable[[Sequence[Tensor], Tensor], tuple[list[Tensor], Tensor | None]]


def _relus(maps: Sequence[Tensor]) -> list[Tensor]:
    return [torch.relu(x) for x in maps]


def _plain(maps: Sequence[Tensor], labels: Tensor) -> tuple[list[Tensor], None]:
    return _relus(maps), None


def _fused(maps: Sequence[Tensor], labels: Tensor) -> tuple[list[Tensor], Tensor]:
    pairs = [selkern.relu_with_mean(x) for x in maps]
    means = [mean for _, mean in pairs]
    index = selkern.mean_selectivity(means, labels, NUM_CLASSES)
    return [output for output, _ in pairs], -ALPHA * index


def _unfused(maps: Sequence[Tensor], labels: Tensor) -> tuple[list[Tensor], Tensor]:
    outputs = _relus(maps)
    index = selkern.mean_selectivity(outputs, labels, NUM_CLASSES)
    return outputs, -ALPHA * index


def _page(maps: Sequence[Tensor], labels: Tensor) -> tuple[list[Tensor], Tensor]:
    outputs = _relus(maps)
    return outputs, -ALPHA * mean_selectivity_page(outputs, labels, (2, 3))


def careful_stack(maps: Sequence[Tensor], labels: Tensor) -> tuple[list[Tensor], Tensor]:
    outputs = _relus(maps)
    index = selkern.reference.mean_selectivity(outputs, labels, NUM_CLASSES)
    return outputs, -ALPHA * index


class ReLUStack(Work):
    name = "relu_stack"
    title = (
        "19 ReLU maps of ResNet-20 at batch 128, forward and backward, "
        "a gradient coming in at every map"
    )
    rounds = 40
    targets: ClassVar[tuple[Target, ...]] = (
        Target(
            "added by relu_with_mean, of what eager careful adds",
            lambda comparison: comparison.added_share(FUSED, CAREFUL, PLAIN),
            100 / 15,
            at_least=False,
            unit="%",
        ),
        Target(
            "added by mean_selectivity on plain ReLUs, of what eager careful adds",
            lambda comparison: comparison.added_share(UNFUSED, CAREFUL, PLAIN),
            100 / 2,
            at_least=False,
            unit="%",
        ),
        Target(
            "added by relu_with_mean, of what eager page adds",
            lambda comparison: comparison.added_share(FUSED, PAGE, PLAIN),
            100 / 15,
            at_least=False,
            unit="%",
        ),
    )

    batch: ClassVar[int] = 128

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        source = inputs.generator(device=device)
        self.labels = inputs.labels(self.batch, NUM_CLASSES, source)
        self.maps = inputs.resnet20_maps(self.batch, source)
        # Of the size of the regularizer's own gradient, so that a wrong one shows.
        self.gradients = [1e-6 * g for g in inputs.resnet20_maps(self.batch, source)]
        for x in self.maps:
            x.requires_grad_()

    def moved_bytes(self) -> int:
        # x in and y out; then the gradient and y in and the new gradient out.
        return 5 * inputs.num_bytes(self.maps)

    @contender(PLAIN, "plain", fits_graph=True)
    def plain_relus(self) -> Outcome:
        return self._step(_plain)

    @contender(PLAIN_AGAIN, "noise", fits_graph=True)
    def plain_relus_again(self) -> Outcome:
        return self._step(_plain)

    @contender(FUSED, "selkern", fits_graph=True)
    def fused(self) -> Outcome:
        return self._step(_fused)

    @contender(UNFUSED, "selkern", fits_graph=True)
    def unfused(self) -> Outcome:
        return self._step(_unfused)

    @contender(PAGE)
    def page(self) -> Outcome:
        return self._step(_page)

    @contender(CAREFUL, fits_graph=True)
    def careful(self) -> Outcome:
        return self._step(careful_stack)

    @contender(COMPILED_PLAIN, "plain", compiled=True)
    def compiled_plain(self) -> Outcome:
        return self._step(self._compiled[_plain])

    @contender("eager page, compiled", compiled=True)
    def compiled_page(self) -> Outcome:
        return self._step(self._compiled[_page])

    @contender("eager careful, compiled", compiled=True)
    def compiled_careful(self) -> Outcome:
        return self._step(self._compiled[careful_stack])

    @contender("selkern.relu_with_mean, compiled", "selkern", compiled=True)
    def compiled_fused(self) -> Outcome:
        return self._step(self._compiled[_fused])

    @cached_property
    def _compiled(self) -> dict[Stack, Stack]:
        stacks = (_plain, _page, careful_stack, _fused)
        return {stack: torch.compile(stack, dynamic=False) for stack in stacks}

    def _step(self, stack: Stack) -> Outcome:
        outputs, loss = stack(self.maps, self.labels)
        if loss is None:
            return Outcome(None, torch.autograd.grad(outputs, self.maps, self.gradients))
        gradients = torch.autograd.grad([*outputs, loss], self.maps, [*self.gradients, None])
        return Outcome(loss, gradients)

    def expected(self, label: str) -> Outcome:
        if self.contenders[label].role in ("plain", "noise"):
            return Outcome(None, self._expected_gradients([None] * len(self.maps)))
        means = [x.detach().double().relu().mean((2, 3)) for x in self.maps]
        index, of_means = inputs.selectivity_and_gradients(means, self.labels)
        return Outcome(-ALPHA * index, self._expected_gradients(of_means))

    def _expected_gradients(self, of_means: Sequence[Tensor | None]) -> Iterator[Tensor]:
        for x, incoming, of_mean in zip(self.maps, self.gradients, of_means, strict=True):
            total = incoming.double()
            if of_mean is not None:
                positions = x[0, 0].numel()
                total = total - ALPHA * of_mean[:, :, None, None] / positions
            yield total * (x > 0)
