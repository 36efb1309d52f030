"""The bandwidth that a device-to-device copy reaches, measured beside the work."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from ..work import COPY, Outcome, Work, contender
from . import inputs

__all__ = ["WithCopy"]

CACHES_FILLED = 4
COLD = f"cold: inputs rotate through at least {CACHES_FILLED} times the second-level cache"


class WithCopy(Work):
    """A work with a copy that reads and writes as many bytes in all."""

    @contender(COPY, "copy", fits_graph=True)
    def copy(self) -> Outcome:
        for call in range(self.calls):
            source, target = self._buffers[call % len(self._buffers)]
            target.copy_(source)
        return Outcome()

    @property
    def sets(self) -> int:
        """How many sets of inputs a repetition goes through."""
        return 1

    @cached_property
    def _buffers(self) -> list[tuple[Tensor, Tensor]]:
        moved = self.moved_bytes()
        assert moved is not None
        source = inputs.generator(device=self.device)
        # Half of the bytes are read, half are written, in words of 4.
        words = max(1, moved // 8)
        buffers = []
        for _ in range(self.sets):
            values = torch.empty(words, dtype=torch.int32, device=self.device)
            values.random_(generator=source)
            buffers.append((values, torch.empty_like(values)))
        return buffers

    def check_outcome(self, label: str) -> Outcome:
        if self.entries[label].role != "copy":
            return super().check_outcome(label)
        self.repetition(label)()
        return Outcome(outputs=[target for _, target in self._buffers])

    def expected(self, label: str) -> Outcome:
        assert label == COPY
        return Outcome(outputs=[source.double() for source, _ in self._buffers])


def sets_beyond_cache(device: torch.device, set_bytes: int) -> int:
    """How many sets of inputs do not fit the second-level cache."""
    if device.type != "cuda":
        return 2
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    return max(1, -(-CACHES_FILLED * cache // max(1, set_bytes)))
