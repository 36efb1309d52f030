"""Class means of a matrix of features, against the ways torch offers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

import selkern

from ..compare import Comparison, Quartiles
from ..work import COPY, Outcome, Target, Work, contender
from . import inputs

__all__ = ["ClassMeans", "ClassMeans200", "ClassMeans1000", "class_means_targets"]

READ = "bare read (torch.sum)"
FUSED = "selkern.class_means"
USUAL = ("one-hot matmul", "index_add", "scatter_add")

# Two rivals are in beta, and say so once each.
warnings.filterwarnings("ignore", message=r"index_reduce\(\) is in beta|Sparse CSR tensor support")

Means = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]


def _one_hot_matmul(x: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    membership = F.one_hot(labels, classes).to(x.dtype)
    counts = membership.sum(0)
    return membership.T @ x / counts.clamp(min=1)[:, None], counts


def _index_add(x: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    counts = torch.bincount(labels, minlength=classes)
    sums = x.new_zeros(classes, x.shape[1]).index_add_(0, labels, x)
    return sums / counts.clamp(min=1)[:, None], counts


def _scatter_add(x: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    counts = torch.bincount(labels, minlength=classes)
    rows = labels[:, None].expand_as(x)
    sums = x.new_zeros(classes, x.shape[1]).scatter_add_(0, rows, x)
    return sums / counts.clamp(min=1)[:, None], counts


def _index_reduce(x: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    counts = torch.bincount(labels, minlength=classes)
    means = x.new_zeros(classes, x.shape[1])
    return means.index_reduce_(0, labels, x, "mean", include_self=False), counts


def _segment_reduce(x: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    counts = torch.bincount(labels, minlength=classes)
    means = torch.segment_reduce(
        x[labels.argsort()], "mean", lengths=counts, axis=0, initial=0.0, unsafe=True
    )
    return means, counts


def _embedding_bag(x: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    counts = torch.bincount(labels, minlength=classes)
    offsets = counts.cumsum(0) - counts
    return F.embedding_bag(labels.argsort(), x, offsets, mode="mean"), counts


def _sparse_matmul(x: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    counts = torch.bincount(labels, minlength=classes)
    order = labels.argsort()
    starts = F.pad(counts.cumsum(0), (1, 0))
    weights = counts.to(x.dtype).reciprocal()[labels[order]]
    membership = torch.sparse_csr_tensor(
        starts, order, weights, (classes, len(labels)), check_invariants=False
    )
    return membership @ x, counts


class ClassMeans(Work):
    rounds = 100
    quick_rounds = 30
    samples: ClassVar[int] = 4096
    units: ClassVar[int] = 2048
    num_classes: ClassVar[int]

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        source = inputs.generator(device=device)
        self.x = inputs.uniform(self.samples, self.units, source=source)
        self.labels = inputs.labels(self.samples, self.num_classes, source)
        self.gradient = inputs.normal(self.num_classes, self.units, source=source)

    def moved_bytes(self) -> int:
        means = self.num_classes * self.units * self.x.element_size()
        return inputs.num_bytes([self.x, self.labels]) + means

    @contender(READ, "read")
    def read(self) -> Outcome:
        torch.sum(self.x)
        return Outcome()

    @contender(FUSED, "selkern", fits_graph=True)
    def fused(self) -> Outcome:
        return self._means(selkern.class_means)

    @contender("one-hot matmul", fits_graph=True)
    def one_hot_matmul(self) -> Outcome:
        return self._means(_one_hot_matmul)

    @contender("index_add")
    def index_add(self) -> Outcome:
        return self._means(_index_add)

    @contender("scatter_add")
    def scatter_add(self) -> Outcome:
        return self._means(_scatter_add)

    @contender("index_reduce")
    def index_reduce(self) -> Outcome:
        return self._means(_index_reduce)

    @contender("sort, segment_reduce")
    def segment_reduce(self) -> Outcome:
        return self._means(_segment_reduce)

    @contender("sort, embedding_bag")
    def embedding_bag(self) -> Outcome:
        return self._means(_embedding_bag)

    @contender("sort, sparse matmul")
    def sparse_matmul(self) -> Outcome:
        return self._means(_sparse_matmul)

    @contender("one-hot matmul, compiled", compiled=True)
    def compiled_one_hot_matmul(self) -> Outcome:
        return self._means(self._compiled[_one_hot_matmul])

    @contender("index_add, compiled", compiled=True)
    def compiled_index_add(self) -> Outcome:
        return self._means(self._compiled[_index_add])

    @cached_property
    def _compiled(self) -> dict[Means, Means]:
        means = (_one_hot_matmul, _index_add)
        return {mean: torch.compile(mean, dynamic=False) for mean in means}

    def _means(self, means: Means) -> Outcome:
        return Outcome(means(self.x, self.labels, self.num_classes)[0])

    def outcome(self, label: str) -> Outcome:
        if label == READ:
            return Outcome()
        self.x.requires_grad_()
        value = self.repetition(label)().value
        assert value is not None
        gradients = torch.autograd.grad(value, self.x, self.gradient)
        self.x.requires_grad_(False)
        return Outcome(value.detach(), gradients)

    def expected(self, label: str) -> Outcome:
        if label == READ:
            return Outcome()
        counts = torch.bincount(self.labels, minlength=self.num_classes)
        counts = counts.clamp(min=1).double()[:, None]
        sums = counts.new_zeros(self.num_classes, self.units)
        means = sums.index_add_(0, self.labels, self.x.detach().double()) / counts
        return Outcome(means, [(self.gradient.double() / counts)[self.labels]])


def _over_usual(comparison: Comparison) -> Quartiles:
    return comparison.ratio(comparison.fastest(USUAL), FUSED)


def _over_any(comparison: Comparison) -> Quartiles:
    rivals = [label for label in comparison.seconds if not label.startswith((READ, COPY, FUSED))]
    return comparison.ratio(comparison.fastest(rivals), FUSED)


def class_means_targets(bound: float) -> tuple[Target, ...]:
    return (
        Target("fastest of one-hot, index_add, scatter_add / class_means", _over_usual, bound),
        Target("fastest of all rivals / class_means", _over_any, 1.0),
    )


class ClassMeans200(ClassMeans):
    name = "class_means_200"
    title = "class_means of [4096, 2048], 200 classes, forward"
    num_classes = 200
    targets = class_means_targets(1.7)


class ClassMeans1000(ClassMeans):
    name = "class_means_1000"
    title = "class_means of [4096, 2048], 1,000 classes, forward"
    num_classes = 1000
    targets = class_means_targets(2.0)
