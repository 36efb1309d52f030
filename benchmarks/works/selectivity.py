"""The mean selectivity index alone: convolutional maps and tokens."""

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

__all__ = ["MeanSelectivityForward", "TokenInputSelectivity", "TokenSelectivity"]

MAP_CLASSES = 10
TOKEN_CLASSES = 1000

READ = "bare read (torch.sum of each map)"
FUSED = "selkern.mean_selectivity"
PAGE = "eager page"
CAREFUL = "eager careful"

Index = Callable[[Sequence[Tensor], Tensor], Tensor]


def _page_of_maps(maps: Sequence[Tensor], labels: Tensor) -> Tensor:
    return mean_selectivity_page(maps, labels, (2, 3))


def careful_of_maps(maps: Sequence[Tensor], labels: Tensor) -> Tensor:
    return selkern.reference.mean_selectivity(maps, labels, MAP_CLASSES)


def _page_of_tokens(tokens: Sequence[Tensor], labels: Tensor) -> Tensor:
    return mean_selectivity_page(tokens, labels, (1,))


def _careful_of_tokens(tokens: Sequence[Tensor], labels: Tensor) -> Tensor:
    return selkern.reference.mean_selectivity(tokens, labels, TOKEN_CLASSES, unit_dim=-1)


class MeanSelectivityForward(Work):
    name = "mean_selectivity"
    title = "mean_selectivity of the 19 maps of ResNet-20 at batch 128, forward"
    rounds = 60
    quick_rounds = 20
    targets = (
        Target(
            "mean_selectivity / bare read",
            lambda comparison: comparison.ratio(FUSED, READ),
            1.25,
            at_least=False,
        ),
        Target(
            "eager careful / mean_selectivity",
            lambda comparison: comparison.ratio(CAREFUL, FUSED),
            1.0,
        ),
    )

    batch: ClassVar[int] = 128

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        source = inputs.generator(device=device)
        self.labels = inputs.labels(self.batch, MAP_CLASSES, source)
        self.maps = [x.relu_() for x in inputs.resnet20_maps(self.batch, source)]

    def moved_bytes(self) -> int:
        return inputs.num_bytes(self.maps)

    @contender(READ, "read")
    def read(self) -> Outcome:
        for x in self.maps:
            torch.sum(x)
        return Outcome()

    @contender(FUSED, "selkern", fits_graph=True)
    def fused(self) -> Outcome:
        return Outcome(selkern.mean_selectivity(self.maps, self.labels, MAP_CLASSES))

    @contender(PAGE)
    def page(self) -> Outcome:
        return Outcome(_page_of_maps(self.maps, self.labels))

    @contender(CAREFUL, fits_graph=True)
    def careful(self) -> Outcome:
        return Outcome(careful_of_maps(self.maps, self.labels))

    @contender("eager page, compiled", compiled=True)
    def compiled_page(self) -> Outcome:
        return Outcome(self._compiled[_page_of_maps](self.maps, self.labels))

    @contender("eager careful, compiled", compiled=True)
    def compiled_careful(self) -> Outcome:
        return Outcome(self._compiled[careful_of_maps](self.maps, self.labels))

    @cached_property
    def _compiled(self) -> dict[Index, Index]:
        indices = (_page_of_maps, careful_of_maps)
        return {index: torch.compile(index, dynamic=False) for index in indices}

    def outcome(self, label: str) -> Outcome:
        if label == READ:
            return Outcome()
        for x in self.maps:
            x.requires_grad_()
        value = self.repetition(label)().value
        assert value is not None
        gradients = torch.autograd.grad(value, self.maps)
        for x in self.maps:
            x.requires_grad_(False)
        return Outcome(value.detach(), gradients)

    def expected(self, label: str) -> Outcome:
        if label == READ:
            return Outcome()
        means = [x.double().mean((2, 3)) for x in self.maps]
        index, of_means = inputs.selectivity_and_gradients(means, self.labels)
        return Outcome(index, self._expected_gradients(of_means))

    def _expected_gradients(self, of_means: Sequence[Tensor]) -> Iterator[Tensor]:
        for x, of_mean in zip(self.maps, of_means, strict=True):
            positions = x[0, 0].numel()
            yield (of_mean / positions)[:, :, None, None].expand_as(x)


class TokenSelectivity(Work):
    name = "tokens"
    title = (
        "mean_selectivity of tokens, 12 x [64, 197, 768], 1,000 classes, forward and backward "
        "to activations inside a network"
    )
    rounds = 20
    quick_rounds = 6
    targets = (
        Target(
            "eager careful / mean_selectivity",
            lambda comparison: comparison.ratio(CAREFUL, FUSED),
            5.0,
        ),
        Target(
            "eager page / mean_selectivity",
            lambda comparison: comparison.ratio(PAGE, FUSED),
            5.0,
        ),
    )

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        source = inputs.generator(device=device)
        self.labels = inputs.labels(64, TOKEN_CLASSES, source)
        # Non-negative, as the index is meant for.
        self.tokens = [self._tokens(source) for _ in range(12)]

    @staticmethod
    def _tokens(source: torch.Generator) -> Tensor:
        leaf = inputs.uniform(64, 197, 768, source=source).requires_grad_()
        # An activation inside a network has an operation behind it.
        return leaf.view_as(leaf)

    def moved_bytes(self) -> int:
        # A gradient that is the same for all tokens of a sample need not be written out.
        return inputs.num_bytes(self.tokens)

    @contender(FUSED, "selkern")
    def fused(self) -> Outcome:
        index = selkern.mean_selectivity(self.tokens, self.labels, TOKEN_CLASSES, unit_dim=-1)
        return self._with_gradients(index)

    @contender(PAGE)
    def page(self) -> Outcome:
        return self._with_gradients(_page_of_tokens(self.tokens, self.labels))

    @contender(CAREFUL)
    def careful(self) -> Outcome:
        return self._with_gradients(_careful_of_tokens(self.tokens, self.labels))

    @contender("eager page, compiled", compiled=True)
    def compiled_page(self) -> Outcome:
        index = self._compiled[_page_of_tokens](self.tokens, self.labels)
        return self._with_gradients(index)

    @contender("eager careful, compiled", compiled=True)
    def compiled_careful(self) -> Outcome:
        index = self._compiled[_careful_of_tokens](self.tokens, self.labels)
        return self._with_gradients(index)

    @cached_property
    def _compiled(self) -> dict[Index, Index]:
        indices = (_page_of_tokens, _careful_of_tokens)
        return {index: torch.compile(index, dynamic=False) for index in indices}

    def _with_gradients(self, index: Tensor) -> Outcome:
        return Outcome(index, torch.autograd.grad(index, self.tokens))

    def expected(self, label: str) -> Outcome:
        means = [x.detach().double().mean(1) for x in self.tokens]
        index, of_means = inputs.selectivity_and_gradients(means, self.labels)
        return Outcome(index, self._expected_gradients(of_means))

    def _expected_gradients(self, of_means: Sequence[Tensor]) -> Iterator[Tensor]:
        for x, of_mean in zip(self.tokens, of_means, strict=True):
            yield (of_mean / x.shape[1])[:, None, :].expand_as(x)


class TokenInputSelectivity(TokenSelectivity):
    name = "tokens_as_inputs"
    title = (
        "mean_selectivity of tokens, 12 x [64, 197, 768], 1,000 classes, forward and backward "
        "to leaves, whose gradients are written out"
    )

    @staticmethod
    def _tokens(source: torch.Generator) -> Tensor:
        return inputs.uniform(64, 197, 768, source=source).requires_grad_()

    def moved_bytes(self) -> int:
        return 2 * inputs.num_bytes(self.tokens)
