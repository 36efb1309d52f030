"""Bugs put into kernels on purpose, each of which the harness must show."""

from __future__ import annotations

import os
import re
import subprocess
from functools import cache

import pytest
import simt_build
from emulator import Runtime

SANITIZED = "address,undefined"
RACES = "thread"


@cache
def program(variant: str) -> list[str]:
    path = str(simt_build.build_bugs(variant))
    if variant == RACES:
        return [*simt_build.without_address_randomisation(), path]
    return [path]


def sanitized(variant: str, *cases: str, **environment: str) -> tuple[bool, str]:
    """Whether the sanitizer has nothing to say of these kernels, and all that was printed."""
    done = subprocess.run(
        [*program(variant), *cases],
        # Its own sanitizer, and not the one that these tests may run under.
        env={**os.environ, "LD_PRELOAD": "", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode == 0, done.stdout + done.stderr


def line_of(file: str, text: str, occurrence: int = 0) -> str:
    """The place where a line of a kernel stands, as reports name it."""
    path = simt_build.HERE / "bugs" / file
    lines = (simt_build.ROOT / path).read_text().splitlines()
    numbers = [number for number, line in enumerate(lines, 1) if text in line]
    return f"{path}:{numbers[occurrence]}"


def numbers(text: str) -> list[float]:
    return [float(word) for word in text.split()]


ORDERS = [("forward", 0), ("reversed", 0), *(("random", seed) for seed in range(3))]


def in_every_order(harness: Runtime, case: str) -> set[str]:
    results = set()
    for order, seed in ORDERS:
        with harness.order(order, seed=seed):
            results.add(harness.run_case(case))
    return results


@pytest.mark.parametrize("bug", ["missing_barrier", "missing_barrier_after_reads"])
def test_missing_barrier_shows_in_another_order(harness: Runtime, bug: str) -> None:
    assert len(in_every_order(harness, bug)) > 1
    (right,) = in_every_order(harness, f"no_{bug}")
    assert "nan" not in right


def test_missing_barrier_reads_nan(harness: Runtime) -> None:
    assert "nan" in harness.run_case("missing_barrier")


def test_barrier_that_some_threads_skip(harness: Runtime) -> None:
    text = harness.run_case("skipped_barrier")
    assert text.startswith("error 719: skipped_barrier_kernel, block (0, 0, 0): threads wait at")
    for occurrence in range(2):
        place = line_of("barrier_not_reached.cu", "__syncthreads", occurrence)
        assert re.search(rf"threads [\d, ]+: at {place} in __syncthreads", text)


def test_thread_that_exits_while_others_wait(harness: Runtime) -> None:
    text = harness.run_case("early_exit")
    place = line_of("barrier_not_reached.cu", "__syncthreads", 2)
    assert "early_exit_kernel" in text
    assert f"threads 0-4, 6-63: at {place} in __syncthreads" in text
    assert "thread 5: exited" in text


def test_divergent_barriers(harness: Runtime) -> None:
    text = harness.run_case("divergent_barriers")
    places = [line_of("barrier_not_reached.cu", "__syncthreads", i) for i in (3, 4)]
    assert "different barriers" in text
    assert f"threads 0-39: at {places[0]}" in text
    assert f"threads 40-63: at {places[1]}" in text


def test_shuffle_with_a_lane_that_has_exited(harness: Runtime) -> None:
    text = harness.run_case("exited_lane")
    place = line_of("absent_lane.cu", "__shfl_xor_sync")
    assert f"threads 32-47: at {place} in __shfl_xor_sync, mask 0xffffffff" in text
    assert "threads 0-31, 48-63: exited" in text


def test_vote_with_a_lane_that_waits_elsewhere(harness: Runtime) -> None:
    text = harness.run_case("waiting_elsewhere")
    vote, barrier = line_of("absent_lane.cu", "__ballot"), line_of("absent_lane.cu", "__syncth")
    assert f"threads 0-7: at {vote} in __ballot_sync, mask 0xffff\n" in text
    assert f"threads 8-63: at {barrier} in __syncthreads" in text


def test_shuffle_from_outside_its_mask(harness: Runtime) -> None:
    place = line_of("absent_lane.cu", "0x7fffffff")
    expected = f"thread 31 is not in its own mask 0x7fffffff of __shfl_sync at {place}\n"
    assert expected in harness.run_case("foreign_mask")


def test_misaligned_access(harness: Runtime) -> None:
    text = harness.run_case("misaligned_access")
    place = line_of("misaligned_access.cu", "__ldcs")
    assert re.search(rf"thread 0 accesses 0x\w+, not aligned to 16 bytes, at {place}\n", text)
    assert harness.run_case("no_misaligned_access") == "7 7 7 7\n"


def test_unwritten_output(harness: Runtime) -> None:
    text = harness.run_case("unwritten_output").split()
    assert [word.strip("-") for word in text] == ["2"] * 32 + ["nan"] * 8


def test_block_order_that_changes_the_result(harness: Runtime) -> None:
    assert len(in_every_order(harness, "block_order")) > 2
    with harness.order("forward", blocks="reversed"):
        reversed_blocks = harness.run_case("block_order")
    assert reversed_blocks != harness.run_case("block_order")


def test_index_of_32_bits(harness: Runtime) -> None:
    right = harness.run_case("no_index_overflow")
    if "no address space" in right:
        pytest.skip("the machine does not give out 32 GB of addresses")
    assert numbers(right) == [10, 11]
    assert numbers(harness.run_case("index_overflow")) == [10, 0]


def test_overflow_of_a_signed_index() -> None:
    clean, text = sanitized(SANITIZED, "product_overflow")
    place = line_of("index_overflow.cu", "row * stride")
    assert not clean
    assert re.search(rf"{place}:\d+: runtime error: signed integer overflow", text)


@pytest.mark.parametrize("access", ["read", "write"])
@pytest.mark.parametrize("memory", ["dynamic_shared", "static_shared", "buffer"])
def test_access_past_the_end(access: str, memory: str) -> None:
    clean, text = sanitized(SANITIZED, f"{access}_past_{memory}")
    place = line_of("overrun.cu", "out[0] = memory" if access == "read" else "memory[offset] = 1")
    assert not clean
    assert f"{access.upper()} of size 4" in text
    assert re.search(rf"#0 \w+ in touch<.*{place}", text)


def test_vector_past_the_end() -> None:
    clean, text = sanitized(SANITIZED, "vector_past_buffer")
    assert not clean
    assert re.search(rf"#1 \w+ in vector_kernel {line_of('overrun.cu', '__ldg')}", text)


RIGHT = ["no_missing_barrier", "no_missing_barrier_after_reads", "no_overrun"]
RIGHT += ["no_misaligned_access", "last_block", "warp_barrier", "no_race"]


@pytest.mark.parametrize("variant", [SANITIZED, RACES])
def test_no_report_on_right_kernels(variant: str) -> None:
    clean, text = sanitized(variant, *RIGHT)
    assert clean, text
    assert "error" not in text
    assert "runtime" not in text


# Kernels that fail leave threads behind in the middle of what they did.
@pytest.mark.parametrize("variant", [SANITIZED, RACES])
def test_no_report_after_a_launch_that_failed(variant: str) -> None:
    failing = ["early_exit", "divergent_barriers", "foreign_mask", "misaligned_access"]
    clean, text = sanitized(variant, *failing, *RIGHT)
    assert clean, text
    assert text.count("error 719:") == len(failing)


def assert_race(case: str, first: str, second: str, **environment: str) -> None:
    """Both lines must be in the first report."""
    clean, text = sanitized(RACES, case, **environment)
    assert not clean
    assert "data race" in text
    report = text.split("==================")[1]
    assert first in report, report
    assert second in report, report


@pytest.mark.parametrize(
    ("case", "first", "second"),
    [
        ("missing_barrier", "stage[threadIdx.x] = data", "stage[blockDim.x - 1"),
        ("missing_barrier_after_reads", "stage[threadIdx.x] = value", "value = stage["),
    ],
)
def test_race_within_a_block(case: str, first: str, second: str) -> None:
    file = "missing_barrier.cu"
    assert_race(case, line_of(file, first), line_of(file, second))


def test_race_between_blocks() -> None:
    place = line_of("races.cu", "data[0] = blockIdx.x")
    assert_race("race_between_blocks", place, place)


def test_block_that_counts_itself_too_early(harness: Runtime) -> None:
    """Only while other blocks run does it show that some of its threads have not written yet."""
    seen: dict[str, set[str]] = {"last_block": set(), "no_barrier_before_atomic": set()}
    for case, results in seen.items():
        for seed in range(32):
            with harness.order("random", seed=seed):
                results.add(harness.run_case(case))
    assert len(seen["last_block"]) == 1
    assert len(seen["no_barrier_before_atomic"]) > 1


TOO_EARLY = ["no_fence_before_atomic", "no_fence_after_atomic", "no_barrier_before_atomic"]


@pytest.mark.parametrize("case", TOO_EARLY)
def test_missing_fence(case: str) -> None:
    assert_race(case, line_of("races.cu", "] = threadIdx.x;"), line_of("races.cu", "sum += parts"))


def test_shuffle_in_place_of_a_barrier() -> None:
    reads = line_of("races.cu", "shared[31 - threadIdx.x]")
    assert_race("shuffle_for_barrier", line_of("races.cu", "= threadIdx.x;", 1), reads)


def test_barrier_left_out_by_its_place(harness: Runtime) -> None:
    harness.reset()
    right = harness.run_case("no_missing_barrier")
    place = line_of("missing_barrier.cu", "__syncthreads")
    assert harness.barrier_sites() == [place]
    assert harness.kernels() == ["reverse_kernel<false>"]
    for name in (place, "missing_barrier.cu" + place[place.index(":") :]):
        with harness.without_barrier("no_such_file.cu:1", name):
            assert harness.run_case("no_missing_barrier") != right
    assert harness.run_case("no_missing_barrier") == right


def test_barrier_left_out_by_the_environment() -> None:
    place = line_of("missing_barrier.cu", "__syncthreads", 2)
    reads = line_of("missing_barrier.cu", "value = stage[")
    writes = line_of("missing_barrier.cu", "stage[threadIdx.x] = value")
    case = "no_missing_barrier_after_reads"
    assert_race(case, reads, writes, SIMT_SKIP_BARRIER=place)


def test_barrier_of_a_warp_left_out() -> None:
    place = line_of("races.cu", "__syncwarp")
    reads = line_of("races.cu", "shared[31 - threadIdx.x]")
    writes = line_of("races.cu", "= threadIdx.x;", 1)
    assert_race("warp_barrier", reads, writes, SIMT_SKIP_BARRIER=place)
