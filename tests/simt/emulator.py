"""The operators whose CUDA kernels are executed on the CPU, and what a test can ask of them."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import simt_build
import torch

import selkern._basis_autograd
import selkern._linalg_autograd
import selkern._penalty_autograd
import selkern._pooling_autograd
import selkern._selectivity_autograd
import selkern._spectrum_autograd
import selkern.attacks._step

# Where the package looks its operators up.
OPERATOR_MODULES = (
    selkern._pooling_autograd,
    selkern._selectivity_autograd,
    selkern._linalg_autograd,
    selkern._spectrum_autograd,
    selkern._penalty_autograd,
    selkern._basis_autograd,
    selkern.attacks._step,
)


class Runtime:
    """The runtime in a library that ``build`` has linked."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        library.simt_barrier_sites.restype = ctypes.c_char_p
        library.simt_kernels.restype = ctypes.c_char_p
        if hasattr(library, "run_case"):
            library.run_case.restype = ctypes.c_char_p

    @contextmanager
    def order(self, threads: str, blocks: str | None = None, seed: int = 0) -> Iterator[None]:
        """Execute threads, and blocks, "forward", "reversed" or in a "random" order.

        Blocks run one after another, but in a random order of threads one thread or warp of the
        first block stops somewhere until all the others have ended. Every launch starts from
        the seed.
        """
        names = [name.encode() for name in (threads, blocks or threads)]
        if not {b"forward", b"reversed", b"random"}.issuperset(names):
            raise ValueError(f"an order is forward, reversed or random, not {names}")
        self.library.simt_set_order(*names, ctypes.c_ulonglong(seed))
        try:
            yield
        finally:
            self.library.simt_set_order(b"forward", b"forward", ctypes.c_ulonglong(0))

    @contextmanager
    def without_barrier(self, *sites: str) -> Iterator[None]:
        """Leave out the barriers at these places, ``file:line``."""
        self.library.simt_skip_barrier(",".join(sites).encode())
        try:
            yield
        finally:
            self.library.simt_skip_barrier(b"")

    def barrier_sites(self) -> list[str]:
        """Barriers executed since the last ``reset``."""
        return self.library.simt_barrier_sites().decode().splitlines()

    def kernels(self) -> list[str]:
        """Kernels executed since the last ``reset``, with their template arguments."""
        return self.library.simt_kernels().decode().splitlines()

    def run_case(self, name: str) -> str:
        """Run a kernel of the harness's own tests, and return what it says."""
        return self.library.run_case(name.encode()).decode()

    def reset(self) -> None:
        self.library.simt_reset()


def load(path: Path) -> Runtime:
    return Runtime(ctypes.CDLL(str(path)))


@cache
def operators_runtime() -> Runtime:
    """Build the emulated operators, register them with torch, and return their runtime."""
    path = simt_build.build_operators()
    torch.ops.load_library(path)
    return load(path)


def load_operators():
    operators_runtime()
    return torch.ops.selkern_simt
