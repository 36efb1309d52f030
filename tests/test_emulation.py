"""What only the emulated GPU can show: other orders of threads, and kernels without a barrier."""

from __future__ import annotations

import faulthandler
import json
import multiprocessing
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import on_gpu_kernels
import pytest
import simt_build
import torch
from attack_probe import attack_results
from cases import DTYPES, LABELS, all_results, assert_same_bits, case_name, normal
from emulator import OPERATOR_MODULES, Runtime
from spectrum_probe import spectrum_results
from torch import Tensor

import selkern

SOURCES = Path(__file__).parents[1] / "csrc" / "cuda"
# Instead of the headers of the same name in SOURCES.
EMULATED_SOURCES = Path(__file__).parent / "simt" / "include" / "cuda"
RACE_PROBE = Path(__file__).parent / "simt" / "race_probe.py"
ORDERS = [("forward", 0), ("reversed", 0), *(("random", seed) for seed in range(40))]
# Each way that a kernel deals out its work, with as few threads as it takes.
SHAPES = [
    ((2, 100, 7, 7), "contiguous"),
    ((2, 60, 1, 3), "contiguous"),
    ((2, 72, 9, 9), "units_last"),
    ((2, 3, 9, 9), "units_last"),
    ((1, 2, 97, 95), "contiguous"),
    ((300, 5), "contiguous"),
    ((9, 16), "contiguous"),
]


def results_of_layers(dtype: torch.dtype, count: int) -> list[Tensor]:
    labels = LABELS["partly_ignored"](4, 3)
    layers = [
        normal((4, 40, *((3,) if i % 2 else ())), dtype).requires_grad_() for i in range(count)
    ]
    loss = selkern.mean_selectivity(layers, labels, 3)
    return [loss.detach(), *torch.autograd.grad(loss, layers)]


def probe(dtype: torch.dtype) -> list[Tensor]:
    results = [result for case in SHAPES for result in all_results(normal(case[0], dtype, case[1]))]
    in_place = normal((2, 5, 7, 7), dtype)
    mean = selkern._pooling_autograd._ops.relu_with_mean_(in_place)
    rows, classes = normal((290, 3), dtype), torch.arange(290).flip(0)
    many_classes = selkern.class_means(rows, classes, 290)
    of_layers = results_of_layers(dtype, 3)
    operators = selkern._pooling_autograd._ops
    of_families = [*spectrum_results(operators, dtype), *attack_results(operators, dtype)]
    return [*results, in_place, mean, *many_classes, *of_layers, *of_families]


def compiled_kernels() -> set[str]:
    """Names of all kernels, with their template arguments."""
    library = str(simt_build.build_operators())
    symbols = subprocess.run(["nm", "-C", library], check=True, capture_output=True, text=True)
    return set(re.findall(r"(\w+_kernel(?:<[^(]*>)?)\(", symbols.stdout)) - {"record_kernel"}


def test_every_module_that_calls_operators_is_emulated() -> None:
    """In one that is left out, the tests of the CUDA kernels would run those of the CPU."""
    packages = pkgutil.walk_packages(selkern.__path__, "selkern.")
    callers = {
        name
        for name in (package.name for package in packages)
        if getattr(sys.modules.get(name), "_ops", None) is torch.ops.selkern
    }
    assert {module.__name__ for module in OPERATOR_MODULES} == callers - {"selkern._fake"}


def test_every_kernel_is_executed(emulator: Runtime) -> None:
    for dtype in DTYPES:
        probe(dtype)
        results_of_layers(dtype, 1201)
        results_of_layers(dtype, 60)
    assert set(emulator.kernels()) == compiled_kernels()


def test_the_sanitizers_of_a_gpu_watch_every_kernel(emulator: Runtime) -> None:
    cpu = torch.device("cpu")
    for _, _, task in on_gpu_kernels.tasks():
        task(cpu)
    assert set(emulator.kernels()) == compiled_kernels()


@pytest.mark.parametrize("dtype", DTYPES, ids=case_name)
def test_the_order_of_threads_and_blocks_changes_nothing(
    dtype: torch.dtype, emulator: Runtime
) -> None:
    expected = probe(dtype)
    for order, seed in ORDERS[:8]:
        with emulator.order(order, seed=seed):
            assert_same_bits(probe(dtype), expected)


def barriers_in_the_sources() -> set[str]:
    return {
        f"csrc/cuda/{path.name}:{number}"
        for path in SOURCES.glob("*.cu*")
        if not (EMULATED_SOURCES / path.name).exists()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(r"\b(__sync(threads|warp)\w*|team_barrier<[\w:]+>)\(", line)
    }


def run_without(site: str, expected: list[Tensor], emulator: Runtime) -> None:
    """Exit with an error if anything differs, if the kernel has not ended the process already."""
    faulthandler.disable()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    torch.set_num_threads(1)  # those of the parent are not there
    for order, seed in ORDERS:
        with emulator.order(order, seed=seed), emulator.without_barrier(site):
            assert_same_bits(probe(torch.float32), expected)


def shows_without(site: str, expected: list[Tensor], emulator: Runtime) -> bool:
    # A process of its own, because an index that was read too early can be anything.
    process = multiprocessing.get_context("fork").Process(
        target=run_without, args=(site, expected, emulator)
    )
    process.start()
    process.join()
    return process.exitcode != 0


@pytest.mark.slow
def test_leaving_out_any_barrier_shows(emulator: Runtime) -> None:
    expected = probe(torch.float32)
    assert set(emulator.barrier_sites()) == barriers_in_the_sources()
    assert not shows_without("no.cu:1", expected, emulator)
    unnoticed = [
        site
        for site in sorted(barriers_in_the_sources())
        if not shows_without(site, expected, emulator)
    ]
    assert not unnoticed


def watch_for_races(*dtypes: str, skipped_barrier: str = "") -> subprocess.CompletedProcess[str]:
    simt_build.build_operators("thread")
    runtime = subprocess.run(
        [*simt_build.COMPILER, "-print-file-name=libtsan.so"], capture_output=True, text=True
    )
    return subprocess.run(
        [*simt_build.without_address_randomisation(), sys.executable, RACE_PROBE, *dtypes],
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "LD_PRELOAD": runtime.stdout.strip(),
            "TSAN_OPTIONS": "halt_on_error=1",
            "SELKERN_SIMT_SANITIZE": "thread",
            "SIMT_SKIP_BARRIER": skipped_barrier,
        },
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_threads_never_race() -> None:
    done = watch_for_races("bfloat16", "float32", "float64")
    assert done.returncode == 0, done.stderr
    assert "ThreadSanitizer" not in done.stderr
    every_kernel = {name.partition("<")[0] for name in compiled_kernels()}
    for executed in json.loads(done.stdout).values():
        assert {name.partition("<")[0] for name in executed} == every_kernel


@pytest.mark.slow
def test_a_race_is_reported_with_both_lines() -> None:
    text = (SOURCES / "pooling_reduction.cuh").read_text().splitlines()
    first_barrier = next(n for n, line in enumerate(text, 1) if "__syncthreads" in line)
    barrier = f"csrc/cuda/pooling_reduction.cuh:{first_barrier}"
    done = watch_for_races("float32", skipped_barrier=barrier)
    assert done.returncode != 0
    assert "data race" in done.stderr
    assert "csrc/cuda/pooling_vector_sums.cuh" in done.stderr  # what wrote
    assert "sum_of_row" in done.stderr  # what read
