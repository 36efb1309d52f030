"""A whole training step of ResNet-18 in mixed precision, with and without the regularizer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from selkern.study.residual import ResNet18

from ..compare import Comparison
from ..graphs import captured
from ..work import IN_A_GRAPH, Outcome, Target, contender
from .network_step import PLAIN, PLAIN_AGAIN, Regularizer, Trainer, as_vector
from .training import CAREFUL, FUSED, TrainingStep

__all__ = ["ResNet18Step", "ResNet18StepContiguous"]

COMPILED = ", compiled"


class _Trainer(Trainer):
    """Keeps its losses where a graph writes them."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        regularizer: Regularizer | None,
        initial: nn.Module,
    ) -> None:
        super().__init__(model, optimizer, regularizer)
        self.initial = initial
        self.is_mixed = True
        self.objective: Callable[[Tensor, Tensor], Tensor] = self.loss
        self.first: Tensor | None = None
        self.last: Tensor | None = None

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.is_mixed):
            return super().loss(images, labels)

    def step(self, images: Tensor, labels: Tensor) -> None:
        loss = self.objective(images, labels)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()
        self.last = loss.detach()
        if self.first is None:
            self.first = self.last.clone()

    def gradient(self) -> Tensor:
        gradients = [parameter.grad for parameter in self.model.parameters()]
        return as_vector(cast("list[Tensor]", gradients))

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


class ResNet18Step(TrainingStep):
    name = "resnet18_step_channels_last"
    title = (
        "whole training step of ResNet-18, batch 256 of 3 x 64 x 64, 200 classes, SGD, bfloat16 "
        "autocast, channels-last"
    )
    rounds = 60
    quick_rounds = 30
    dtype = torch.bfloat16
    samples = 256
    image_shape = (3, 64, 64)
    num_classes = 200
    width: ClassVar[int] = 64
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
            partial(Comparison.added_percent, label=FUSED + mode, plain=PLAIN + mode),
            2.0,
            at_least=False,
            unit="%",
        )
        for mode in ("", COMPILED, IN_A_GRAPH)
    )

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        self.images = self.images.to(memory_format=self.memory_format)
        self.initial = self.initial.to(memory_format=self.memory_format)  # type: ignore[call-overload]

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def network(self) -> nn.Module:
        return ResNet18(self.num_classes, self.width)

    def regularizer(self, label: str, model: nn.Module) -> Regularizer | None:
        return super().regularizer(label.removesuffix(IN_A_GRAPH).removesuffix(COMPILED), model)

    def trainer(self, label: str) -> _Trainer:
        if label not in self.trainers:
            self.trainers[label] = trainer = self._make_trainer(label)
            if COMPILED in label:
                trainer.objective = torch.compile(trainer.loss, **self.compile_options)
        return cast("_Trainer", self.trainers[label])

    def _make_trainer(self, label: str) -> _Trainer:
        model = copy.deepcopy(self.initial)
        optimizer = self.optimizer(list(model.parameters()))
        return _Trainer(model, optimizer, self.regularizer(label, model), self.initial)

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
        (actual,) = self._gradient_only(self._make_trainer(PLAIN)).gradients
        (expected,) = self._expected[0].gradients
        return float((actual.double() - expected).abs().max() / expected.abs().max())


class ResNet18StepContiguous(ResNet18Step):
    name = "resnet18_step_contiguous"
    title = ResNet18Step.title.replace("channels-last", "contiguous")
    channels_last = False


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
