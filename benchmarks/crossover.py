"""Where our own eigensolver is faster than torch's: what ``selkern/_crossover.py`` is filled from.

``python -m selkern._benchmarks.crossover`` prints how many times faster it is, for each kind of
number, with and without vectors, and the rows that follow.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import ceil

import torch
from torch import Tensor

import selkern

from .clocks import nanoseconds_on
from .compare import interleave
from .tables import print_table

__all__ = ["main", "ratios", "rows"]

BATCHES = (1, 2, 4, 8, 16, 32, 64, 256)
SIZES = (4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 160, 192, 224, 256, 320)
DTYPES = {"float32": torch.float32, "float64": torch.float64}
OWN, TORCH = "selkern", "torch"
SHORTEST = 2e-4
"""Seconds of a repetition, at the least."""

Solver = Callable[[Tensor], object]
Ratios = dict[tuple[int, int], float]


def solvers(with_vectors: bool) -> dict[str, Solver]:
    if with_vectors:
        return {OWN: torch.ops.selkern.eigh, TORCH: torch.linalg.eigh}
    return {OWN: torch.ops.selkern.eigvalsh, TORCH: torch.linalg.eigvalsh}


def ratios(
    dtype: torch.dtype,
    with_vectors: bool,
    batches: Sequence[int] = BATCHES,
    sizes: Sequence[int] = SIZES,
    *,
    device: str = "cpu",
    seconds: float = 0.3,
    give_up: float = 0.4,
) -> Ratios:
    """Time of torch over that of our own kernel, by batch and size.

    Sizes beyond two where the ratio is below `give_up` are left out.

    Parameters
    ----------
    dtype : torch.dtype
        float32 or float64.
    with_vectors : bool
        Measure eigenvectors too.
    batches, sizes : sequence of int
        What to measure, ascending.
    device : str
        Where.
    seconds : float
        How long a cell may take.
    give_up : float
        Where a column ends.
    """
    found: Ratios = {}
    for batch in batches:
        slow = 0
        for size in sizes:
            found[batch, size] = _ratio(dtype, with_vectors, batch, size, device, seconds)
            # Twice, because one may be a disturbed measurement.
            slow = slow + 1 if found[batch, size] < give_up else 0
            if slow == 2:
                break
    return found


def _ratio(
    dtype: torch.dtype, with_vectors: bool, batch: int, size: int, device: str, seconds: float
) -> float:
    source = torch.Generator(device).manual_seed(size)
    x = torch.randn(batch, 2 * size, size, generator=source, device=device, dtype=dtype)
    matrices = x.mT @ x / (2 * size)
    clock = nanoseconds_on(matrices.device)
    chosen = solvers(with_vectors)
    once = [_second_call(partial(solver, matrices), clock) for solver in chosen.values()]
    calls = max(1, ceil(SHORTEST / min(once)))
    rounds = min(50, max(3, int(seconds / (calls * sum(once)))))

    def repeated(solver: Solver) -> Callable[[], None]:
        def repetition() -> None:
            for _ in range(calls):
                solver(matrices)

        return repetition

    comparison = interleave(
        {label: repeated(solver) for label, solver in chosen.items()},
        rounds=rounds,
        nanoseconds_of=clock,
        calls=calls,
    )
    return comparison.ratio(TORCH, OWN).median


def _second_call(call: Callable[[], object], clock: Callable[..., int]) -> float:
    """Seconds of a call that finds everything loaded."""
    call()
    return clock(call) * 1e-9


def rows(found: Mapping[tuple[int, int], float], least: float = 1.05) -> list[tuple[int, int]]:
    """Batch and largest size, so that ours is faster up to that size in that batch and beyond.

    Parameters
    ----------
    found : mapping
        What :func:`ratios` returns.
    least : float
        How many times faster ours has to be.
    """
    batches = sorted({batch for batch, _ in found})
    limits = {}
    for batch in batches:
        reached = 0
        for size in sorted(size for other, size in found if other == batch):
            if found[batch, size] < least:
                break
            reached = size
        limits[batch] = reached
    result: list[tuple[int, int]] = []
    for batch in batches:
        size = min(limits[other] for other in batches if other >= batch)
        if size > (result[-1][1] if result else 0):
            result.append((batch, size))
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    options = _parser().parse_args(arguments)
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, selkern "
        f"{selkern.__version__} with {selkern.build_info()['cpu_capability']} kernels"
    )
    for name in options.dtype or DTYPES:
        for with_vectors in (False, True):
            found = ratios(
                DTYPES[name],
                with_vectors,
                options.batches,
                options.sizes,
                device=options.device,
                seconds=options.seconds,
            )
            print_table(
                f"{'eigh' if with_vectors else 'eigvalsh'} in {name}: time of torch / time of ours",
                ["size", *map(str, options.batches)],
                [
                    [str(size), *(_cell(found.get((batch, size))) for batch in options.batches)]
                    for size in options.sizes
                ],
            )
            print(
                f"rows: {', '.join(f'Row{row}' for row in rows(found, options.least))}", flush=True
            )
    return 0


def _cell(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m selkern._benchmarks.crossover", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", action="append", choices=DTYPES, help="default: both")
    parser.add_argument("--batches", type=_numbers, default=BATCHES, help="separated by commas")
    parser.add_argument("--sizes", type=_numbers, default=SIZES, help="separated by commas")
    parser.add_argument("--seconds", type=float, default=0.3, help="for each cell")
    parser.add_argument("--least", type=float, default=1.05, help="times faster, to be taken")
    return parser


def _numbers(text: str) -> list[int]:
    return sorted(int(word) for word in text.split(","))


if __name__ == "__main__":
    sys.exit(main())
