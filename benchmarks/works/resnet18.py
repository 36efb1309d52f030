"""A whole training step of ResNet-18 in mixed precision, with and without the regularizer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import selkern

from ..graphs import captured
from ..losses import mean_selectivity_page
from ..models import ResNet18
from ..work import IN_A_GRAPH, Outcome, Target, Work, contender
from . import inputs

__all__ = ["ResNet18Step", "ResNet18StepContiguous"]

ALPHA = -2.0
COMPILED = ", compiled"

PLAIN = "plain"
PLAIN_AGAIN = "plain again"
FUSED = "selkern.SelectivityRegularizer"
CAREFUL = "SelectivityRegularizer(backend='reference')"


class _Trainer:
    """One of the networks, all of which start from the same weights."""

    def __init__(self, initial: ResNet18, backend: str | None) -> None:
        self.initial = initial
        self.model = copy.deepcopy(initial)
        self.parameters = list(self.model.parameters())
        self.optimizer = torch.optim.SGD(self.parameters, lr=0.05, momentum=0.9, weight_decay=1e-4)
        self.is_mixed = True
        self.objective: Callable[[Tensor, Tensor], Tensor] = self.loss
        self.first: Tensor | None = None
        self.last: Tensor | None = None
        self.regularizer = None
        if backend is not None:
            self.regularizer = selkern.SelectivityRegularizer(
                self.model, initial.fc.out_features, alpha=ALPHA, backend=backend
            )

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.is_mixed):
            loss = F.cross_entropy(self.model(images), labels)
            if self.regularizer is not None:
                loss = loss + self.regularizer(labels)
        return loss

    def step(self, images: Tensor, labels: Tensor) -> None:
        loss = self.objective(images, labels)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()
        self.last = loss.detach()
        if self.first is None:
            self.first = self.last.clone()

    def gradient(self) -> Tensor:
        return _as_vector([parameter.grad for parameter in self.parameters])

    def restart(self) -> None:
        """Go back to the first weights, in place because a graph may hold them."""
        with torch.no_grad():
            for own, other in zip(
                self.model.state_dict().values(), self.initial.state_dict().values(), strict=True
            ):
                own.copy_(other)
            for state in self.optimizer.state.values():
                if state.get("momentum_buffer") is not None:
                    state["momentum_buffer"].zero_()


class ResNet18Step(Work):
    name = "resnet18_step_channels_last"
    title = (
        "whole training step of ResNet-18, batch 256 of 3 x 64 x 64, 200 classes, SGD, bfloat16 "
        "autocast, channels-last"
    )
    rounds = 60
    quick_rounds = 30
    dtype = torch.bfloat16
    batch: ClassVar[int] = 256
    size: ClassVar[int] = 64
    width: ClassVar[int] = 64
    num_classes: ClassVar[int] = 200
    channels_last: ClassVar[bool] = True
    compile_options: ClassVar[dict[str, Any]] = {"dynamic": False}
    # Eager contenders are checked in float32, where rounding that flips a ReLU is amplified by the
    # layers behind it; the others in bfloat16, where that takes a third of the gradient: they may
    # be twice as far from float64 as the plain eager step.
    gradient_tolerance = 1e-3
    mixed_value_tolerance: ClassVar[float] = 1e-2
    targets = tuple(
        Target(
            f"added by SelectivityRegularizer{mode}",
            lambda comparison, mode=mode: comparison.added_percent(FUSED + mode, PLAIN + mode),
            2.0,
            at_least=False,
            unit="%",
        )
        for mode in ("", COMPILED, IN_A_GRAPH)
    )

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        source = inputs.generator(device=device)
        images = inputs.normal(self.batch, 3, self.size, self.size, source=source)
        self.images = images.to(memory_format=self.memory_format)
        self.labels = inputs.labels(self.batch, self.num_classes, source)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            initial = ResNet18(self.num_classes, self.width)
        self.initial = initial.to(self.device, memory_format=self.memory_format)
        self.trainers: dict[str, _Trainer] = {}

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def trainer(self, label: str) -> _Trainer:
        """The network of a contender, made when it first runs."""
        if label not in self.trainers:
            base = label.removesuffix(IN_A_GRAPH).removesuffix(COMPILED)
            trainer = _Trainer(self.initial, {FUSED: "selkern", CAREFUL: "reference"}.get(base))
            if COMPILED in label:
                trainer.objective = torch.compile(trainer.loss, **self.compile_options)
            self.trainers[label] = trainer
        return self.trainers[label]

    @contender(PLAIN, "plain", fits_graph=True)
    def plain_step(self) -> Outcome:
        return self._step(PLAIN)

    @contender(PLAIN_AGAIN, "noise", fits_graph=True)
    def plain_step_again(self) -> Outcome:
        return self._step(PLAIN_AGAIN)

    @contender(FUSED, "selkern", fits_graph=True)
    def fused_step(self) -> Outcome:
        return self._step(FUSED)

    @contender(CAREFUL, fits_graph=True)
    def careful_step(self) -> Outcome:
        return self._step(CAREFUL)

    @contender(PLAIN + COMPILED, "plain", compiled=True)
    def compiled_plain_step(self) -> Outcome:
        return self._step(PLAIN + COMPILED)

    @contender(PLAIN_AGAIN + COMPILED, "noise", compiled=True)
    def compiled_plain_step_again(self) -> Outcome:
        return self._step(PLAIN_AGAIN + COMPILED)

    @contender(FUSED + COMPILED, "selkern", compiled=True)
    def compiled_fused_step(self) -> Outcome:
        return self._step(FUSED + COMPILED)

    @contender(CAREFUL + COMPILED, compiled=True)
    def compiled_careful_step(self) -> Outcome:
        return self._step(CAREFUL + COMPILED)

    def _step(self, label: str) -> Outcome:
        self.trainer(label).step(self.images, self.labels)
        return Outcome()

    def repetition(self, label: str) -> Callable[[], Outcome]:
        # A graph has a network of its own.
        if label not in self._replays:
            step = partial(self._step, label)
            is_graphed = self.entries[label].graphed
            self._replays[label] = captured(step, self.device) if is_graphed else step
        return self._replays[label]

    def plain_of(self, label: str) -> str | None:
        plain = PLAIN + self._mode(label)
        return None if label == plain else plain

    def _mode(self, label: str) -> str:
        return next((mode for mode in (COMPILED, IN_A_GRAPH) if label.endswith(mode)), "")

    def losses(self, label: str) -> dict[str, float]:
        trainer = self.trainer(label)
        seen = {"first": trainer.first, "last": trainer.last}
        return {name: float(loss) for name, loss in seen.items() if loss is not None}

    def check_outcome(self, label: str) -> Outcome:
        repetition = self.repetition(label)
        trainer = self.trainer(label)
        trainer.restart()
        if self._mode(label):
            repetition()
            assert trainer.last is not None
            outcome = Outcome(trainer.last.clone(), [trainer.gradient()])
        else:
            with _exactly(trainer):
                outcome = self._gradient_only(trainer)
        trainer.restart()
        trainer.first = None
        return outcome

    def _gradient_only(self, trainer: _Trainer) -> Outcome:
        trainer.optimizer.zero_grad()
        loss = trainer.loss(self.images, self.labels)
        torch.autograd.backward(loss)
        return Outcome(loss.detach(), [trainer.gradient()])

    def value_tolerance_of(self, label: str) -> float:
        return self.mixed_value_tolerance if self._mode(label) else self.value_tolerance

    def gradient_tolerance_of(self, label: str) -> float:
        return 2 * self._mixed_error if self._mode(label) else self.gradient_tolerance

    @cached_property
    def _mixed_error(self) -> float:
        """How far bfloat16 takes the plain gradient from float64."""
        (actual,) = self._gradient_only(_Trainer(self.initial, None)).gradients
        (expected,) = self._expected[0].gradients
        return float((actual.double() - expected).abs().max() / expected.abs().max())

    def expected(self, label: str) -> Outcome:
        is_plain = self.contenders[label].role in ("plain", "noise")
        return self._expected[0 if is_plain else 1]

    @cached_property
    def _expected(self) -> tuple[Outcome, Outcome]:
        """Without and with the regularizer."""
        model = copy.deepcopy(self.initial).double()
        maps: list[Tensor] = []
        for module in model.modules():
            if isinstance(module, nn.ReLU):
                module.register_forward_hook(lambda _module, _inputs, output: maps.append(output))
        loss = F.cross_entropy(model(self.images.double()), self.labels)
        means = [x.mean((2, 3)) for x in maps]
        regularized = loss - ALPHA * mean_selectivity_page(means, self.labels, ())
        parameters = list(model.parameters())
        plain = torch.autograd.grad(loss, parameters, retain_graph=True)
        total = torch.autograd.grad(regularized, parameters)
        return (
            Outcome(loss.detach(), [_as_vector(plain)]),
            Outcome(regularized.detach(), [_as_vector(total)]),
        )


class ResNet18StepContiguous(ResNet18Step):
    name = "resnet18_step_contiguous"
    title = ResNet18Step.title.replace("channels-last", "contiguous")
    channels_last = False


def _as_vector(gradients: Any) -> Tensor:
    """The gradient of all parameters as one vector: some are too small to compare alone."""
    return torch.cat([gradient.flatten() for gradient in gradients])


@contextmanager
def _exactly(trainer: _Trainer) -> Iterator[None]:
    """Compute in float32 throughout."""
    tf32 = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    trainer.is_mixed = False
    try:
        yield
    finally:
        trainer.is_mixed = True
        torch.backends.cudnn.allow_tf32 = tf32
