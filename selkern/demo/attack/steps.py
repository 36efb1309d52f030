"""Memory and time of training steps."""

from __future__ import annotations

import gc
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from selkern._benchmarks.compare import Comparison
from selkern._examples import adversarial_training as example
from selkern.demo.attack.networks import Recipe, make_pgd
from selkern.demo.data import Images

__all__ = ["ATTACK", "REST", "STEP", "Memory", "Steps", "watch_steps"]

ATTACK, REST, STEP = "attack", "the rest", "whole step"
WARMUP = 20
ALPHA = -2.0
GROWTH_IN_MIB = 8.0
"""What an allocator may take without a step that keeps anything: one activation is 0.5 MiB."""


@dataclass(frozen=True)
class Memory:
    """What a process holds."""

    resident_mib: float | None
    """None where the system does not tell."""
    tensors: int
    gpu_mib: float | None = None
    """What torch holds on the GPU; None where it trains on the CPU."""

    @classmethod
    def now(cls, device: torch.device) -> Memory:
        gc.collect()
        tensors = sum(issubclass(type(item), Tensor) for item in gc.get_objects())
        on_gpu = torch.cuda.memory_allocated(device) / 2**20 if device.type == "cuda" else None
        return cls(_resident_mib(), tensors, on_gpu)


@dataclass(frozen=True)
class Steps:
    """So many steps after a warm-up: memory before and after them, and how long each took."""

    before: Memory
    after: Memory
    times: Comparison

    @property
    def count(self) -> int:
        return self.times.rounds

    @property
    def growth_in_mib(self) -> float:
        """How much more memory is resident; 0 where the system does not tell."""
        return (self.after.resident_mib or 0.0) - (self.before.resident_mib or 0.0)

    @property
    def growth_on_gpu_in_mib(self) -> float:
        """How much more torch holds on the GPU; 0 where it trains on the CPU."""
        return (self.after.gpu_mib or 0.0) - (self.before.gpu_mib or 0.0)

    def memory_is_flat(self) -> bool:
        growth = max(self.growth_in_mib, self.growth_on_gpu_in_mib)
        return self.after.tensors <= self.before.tensors and growth <= GROWTH_IN_MIB


class _Watch:
    """Stands in for the attack of a network that trains, and so sees every step begin."""

    def __init__(
        self, attack: Callable[[Tensor, Tensor], Tensor], steps: int, device: torch.device
    ) -> None:
        self.attack = attack
        self.steps = steps
        self.device = device
        self.seconds: dict[str, list[float]] = {ATTACK: [], STEP: []}
        self.memory: list[Memory] = []
        self.start = math.nan

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        self.seconds[STEP].append(self._now() - self.start)
        if len(self.seconds[STEP]) - 1 in (WARMUP, WARMUP + self.steps):
            self.memory.append(Memory.now(self.device))
        self.start = self._now()
        adv = self.attack(images, labels)
        self.seconds[ATTACK].append(self._now() - self.start)
        return adv

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return perf_counter()

    def result(self) -> Steps:
        # What ended when a step began was the one before.
        attack = np.array(self.seconds[ATTACK][WARMUP : WARMUP + self.steps])
        step = np.array(self.seconds[STEP][1:][WARMUP : WARMUP + self.steps])
        before, after = self.memory
        return Steps(before, after, Comparison({ATTACK: attack, REST: step - attack, STEP: step}))


def watch_steps(images: Images, recipe: Recipe, steps: int) -> Steps:
    """Watch so many steps of the example's training, after some that are not watched."""
    torch.manual_seed(recipe.seed)
    device = images.images.device
    model = example.make_model().to(device)
    watch = _Watch(make_pgd(model, recipe.eps, recipe.attack_steps), steps, device)
    example.train(
        model,
        images.images,
        images.labels,
        watch,
        ALPHA,
        epochs=math.ceil((WARMUP + steps + 1) / recipe.steps_of_an_epoch(images)),
        batch_size=recipe.batch_size,
    )
    return watch.result()


def _resident_mib() -> float | None:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
