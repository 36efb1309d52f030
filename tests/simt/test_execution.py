"""The harness executes kernels as a GPU does."""

from __future__ import annotations

import subprocess
from ctypes import c_char_p, c_size_t, c_uint, c_void_p

import numpy as np
import pytest
import simt_build
import torch
from emulator import Runtime, load


def pointer(array: np.ndarray) -> c_void_p:
    return array.ctypes.data_as(c_void_p)


def uints(values: list[int] | tuple[int, ...]) -> np.ndarray:
    return np.array(values, dtype=np.uint32)


@pytest.mark.parametrize(
    ("grid", "block"), [((5, 1, 1), (64, 1, 1)), ((2, 3, 4), (5, 7, 3)), ((1, 1, 2), (1, 1024, 1))]
)
def test_every_thread_knows_where_it_is(
    harness: Runtime, grid: tuple[int, int, int], block: tuple[int, int, int]
) -> None:
    blocks, threads = np.prod(grid), np.prod(block)
    positions = np.zeros((blocks, threads, 4, 3), dtype=np.uint32)
    harness.library.run_positions(pointer(positions), pointer(uints(grid)), pointer(uints(block)))

    def places(shape: tuple[int, int, int]) -> np.ndarray:  # x runs fastest
        return np.stack(np.unravel_index(np.arange(np.prod(shape)), shape[::-1])[::-1], axis=-1)

    assert (positions[:, :, 0] == places(block)).all()
    assert (positions[:, :, 1] == places(grid)[:, None]).all()
    assert (positions[:, :, 2] == block).all()
    assert (positions[:, :, 3] == grid).all()


def order_of(harness: Runtime, blocks: int, threads: int) -> list[int]:
    order = np.zeros(blocks * threads, dtype=np.int32)
    harness.library.run_order(pointer(order), blocks, threads)
    return order.tolist()


def test_orders_of_threads_and_blocks(harness: Runtime) -> None:
    forward = list(range(4 * 96))
    assert order_of(harness, 4, 96) == forward
    with harness.order("reversed"):
        assert order_of(harness, 4, 96) == forward[::-1]
    with harness.order("forward", blocks="reversed"):
        first = order_of(harness, 4, 96)
        assert first[:96] == list(range(3 * 96, 4 * 96))
    shuffled = []
    for seed in (1, 1, 2):
        with harness.order("random", seed=seed):
            shuffled.append(order_of(harness, 4, 96))
    assert shuffled[0] == shuffled[1] != shuffled[2]
    assert sorted(shuffled[2]) == forward
    assert order_of(harness, 4, 96) == forward


def launch_nothing(
    harness: Runtime,
    grid: tuple[int, int, int] = (1, 1, 1),
    block: tuple[int, int, int] = (1, 1, 1),
    shared: int = 0,
    allowed: int = 0,
) -> str:
    function = harness.library.run_nothing
    function.restype = c_char_p
    return function(pointer(uints(grid)), pointer(uints(block)), c_size_t(shared), allowed).decode()


@pytest.mark.parametrize(
    ("grid", "block", "problem"),
    [
        ((0, 1, 1), (1, 1, 1), "gridDim.x is 0, not 1 to 2147483647"),
        ((2**31, 1, 1), (1, 1, 1), "gridDim.x is 2147483648, not 1 to 2147483647"),
        ((1, 65536, 1), (1, 1, 1), "gridDim.y is 65536, not 1 to 65535"),
        ((1, 1, 65536), (1, 1, 1), "gridDim.z is 65536, not 1 to 65535"),
        ((1, 1, 1), (0, 1, 1), "blockDim.x is 0, not 1 to 1024"),
        ((1, 1, 1), (1025, 1, 1), "blockDim.x is 1025, not 1 to 1024"),
        ((1, 1, 1), (1, 1, 65), "blockDim.z is 65, not 1 to 64"),
        ((1, 1, 1), (33, 32, 1), "the number of threads is 1056, not 1 to 1024"),
    ],
)
def test_bad_geometry_is_refused(
    harness: Runtime, grid: tuple[int, int, int], block: tuple[int, int, int], problem: str
) -> None:
    expected = f"nothing_kernel: invalid configuration argument: {problem}"
    assert launch_nothing(harness, grid, block) == expected


def test_shared_memory_is_limited(harness: Runtime) -> None:
    assert launch_nothing(harness, shared=48 << 10) == "no error"
    assert "49153 bytes of dynamic shared memory" in launch_nothing(harness, shared=(48 << 10) + 1)
    most = 227 << 10
    assert launch_nothing(harness, shared=most, allowed=most) == "no error"
    assert "at most 232448" in launch_nothing(harness, shared=most, allowed=most + 1)
    assert "too much shared memory: 49153 bytes static" in harness.run_case("big_static_shared")


def test_shared_memory_of_each_block_starts_as_nan(harness: Runtime) -> None:
    assert harness.run_case("shared_memory") == "33 33 33 33 33 33 33 33\n"


def test_errors_are_told_once_and_the_next_launch_runs(harness: Runtime) -> None:
    error, last, *rest = harness.run_case("trap").splitlines()
    assert "trap_kernel, block (0, 0, 0): thread 3 traps at tests/simt/kernels/" in error
    assert last == "last error 719 719 0"
    assert not rest


MASKS = [0xFFFFFFFF, 0x0000FFFF, 0xF0F0F0F0, 0x80000001, 0x00012300, 1 << 17]
DTYPES = ["int32", "uint32", "int64", "float32", "float64", "float16", "bfloat16"]


def source_lane(call: str, lane: int, operand: int, width: int) -> int:
    """CUDA's definition: the lane whose value this one gets."""
    first = lane // width * width
    source = {
        "shfl": first + operand % width,
        "up": lane - operand,
        "down": lane + operand,
        "exclusive_or": lane ^ operand,
    }[call]
    if call == "up":
        return source if source >= first else lane
    return source if source < first + width else lane


@pytest.mark.parametrize("call", ["shfl", "up", "down", "exclusive_or"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_shuffles(harness: Runtime, call: str, dtype: str) -> None:
    random = np.random.default_rng(0)
    size = torch.empty(0, dtype=getattr(torch, dtype)).element_size()
    number = ["shfl", "up", "down", "exclusive_or"].index(call)
    for mask in MASKS:
        for width in (1, 2, 8, 32):
            values = random.integers(0, 256, (32, size), dtype=np.uint8)
            operands = random.integers(0, 32, 32, dtype=np.int32)
            out = np.zeros_like(values)
            harness.library.run_warp(
                dtype.encode(), number, c_uint(mask), *map(pointer, (values, operands)), width,
                pointer(out), None,
            )  # fmt: skip
            for lane in range(32):
                source = source_lane(call, lane, int(operands[lane]), width)
                if not mask >> lane & 1:
                    expected = np.zeros(size)
                elif mask >> source & 1:
                    expected = values[source]
                else:  # undefined
                    expected = np.full(size, 255)
                assert (out[lane] == expected).all(), (mask, width, lane)


@pytest.mark.parametrize("dtype", ["int32", "uint32", "int64", "float32", "float64"])
@pytest.mark.parametrize("kinds", [1, 3])
def test_matches(harness: Runtime, dtype: str, kinds: int) -> None:
    random = np.random.default_rng(1)
    for mask in MASKS:
        values = random.integers(0, kinds, 32).astype(dtype)
        lanes = [lane for lane in range(32) if mask >> lane & 1]
        some, everything = np.zeros(32, dtype=np.uint32), np.zeros(32, dtype=np.uint32)
        for number, out in ((4, some), (5, everything)):
            harness.library.run_warp(
                dtype.encode(), number, c_uint(mask), pointer(values), None, 32, None, pointer(out)
            )
        for lane in lanes:
            equal = sum(1 << other for other in lanes if values[other] == values[lane])
            assert some[lane] == equal
            assert everything[lane] == (mask if equal == mask else 0)


def test_votes_and_reductions(harness: Runtime) -> None:
    random = np.random.default_rng(2)
    for mask in MASKS:
        for make_even in (0xFFFFFFFF, 0xFFFFFFFE):
            values = random.integers(0, 2**32, 32, dtype=np.uint32) & np.uint32(make_even)
            lanes = [lane for lane in range(32) if mask >> lane & 1]
            mine, mine_signed = values[lanes], values[lanes].astype(np.int32)
            odd = mine & 1
            ballot = sum(1 << lane for lane in lanes if values[lane] & 1)
            expected = [ballot, odd.any(), odd.all(), mine.sum(dtype=np.uint32)]
            expected += [mine.min(), mine.max(), np.bitwise_and.reduce(mine)]
            expected += [np.bitwise_or.reduce(mine), np.bitwise_xor.reduce(mine)]
            signed = [mine_signed.min(), mine_signed.max(), mine_signed.sum(dtype=np.int32)]
            votes = np.zeros((32, 12), dtype=np.uint32)
            harness.library.run_votes(c_uint(mask), pointer(values), pointer(votes))
            for lane in lanes:
                assert votes[lane, :9].tolist() == [int(value) for value in expected]
                assert votes[lane, 9:].astype(np.int32).tolist() == [int(v) for v in signed]


def test_masks_of_a_warp_are_independent(harness: Runtime) -> None:
    assert harness.run_case("independent_masks").split() == [str(lane ^ 1) for lane in range(32)]


@pytest.mark.parametrize("threads", [1, 33, 1024])
def test_barriers_that_count(harness: Runtime, threads: int) -> None:
    for probability in (0, 0.3, 1):
        random = np.random.default_rng(3)
        predicates = (random.random(threads) < probability).astype(np.int32) * 5
        out = np.zeros((threads, 3), dtype=np.int32)
        harness.library.run_block_votes(pointer(predicates), threads, pointer(out))
        true = predicates != 0
        assert (out == [true.sum(), true.all(), true.any()]).all()


@pytest.mark.parametrize("order", ["forward", "reversed", "random"])
def test_integer_atomics(harness: Runtime, order: str) -> None:
    every = 2**32 - 1
    u = uints([10, 1000, 100, 0, every, 0, 0, 0, 0, 0, 0])
    i, wide = np.array([0, 100, -100], dtype=np.int32), np.zeros(2, dtype=np.uint64)
    with harness.order(order, seed=5):
        harness.library.run_atomics(*map(pointer, (u, i, wide)))
    swapped = u[10]
    sums = [42, 1000 - 496, 5, 31, 0, every, 0, 32 % 5, 5 - 32 % 5, 77]
    assert u[:10].tolist() == sums
    assert swapped == {"forward": 32, "reversed": 1}.get(order, swapped)
    assert i.tolist() == [496 - 32 * 40, -21, 10]
    assert wide.tolist() == [32 << 40, 31 << 33]


@pytest.mark.parametrize("kind", ["float", "double", "__half"])
def test_no_atomics_on_floating_point_numbers(kind: str) -> None:
    source = f"#include <cuda_fp16.h>\nvoid add({kind}* x) {{ atomicAdd(x, {kind}{{}}); }}"
    flags = [*simt_build.COMPILER, *simt_build.FLAGS, "-fsyntax-only", "-x", "c++", "-"]
    done = subprocess.run(
        flags, input=source, cwd=simt_build.ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "none at all for floating-point numbers" in done.stderr


def convert(harness: Runtime, name: str, values: np.ndarray, result: str) -> np.ndarray:
    out = np.zeros(len(values), dtype=result)
    getattr(harness.library, name)(pointer(values), pointer(out), len(values))
    return out


@pytest.mark.parametrize("name", ["half", "bfloat16"])
def test_widening_is_exact(harness: Runtime, name: str) -> None:
    bits = np.arange(2**16, dtype=np.uint16)
    dtype = torch.float16 if name == "half" else torch.bfloat16
    expected = torch.from_numpy(bits.view(np.int16)).view(dtype).float().numpy()
    np.testing.assert_array_equal(convert(harness, f"{name}_to_float", bits, "float32"), expected)


@pytest.mark.parametrize("wide", ["float", "double"])
@pytest.mark.parametrize("name", ["half", "bfloat16"])
def test_narrowing_rounds_to_nearest_even(harness: Runtime, name: str, wide: str) -> None:
    dtype = torch.float16 if name == "half" else torch.bfloat16
    narrow = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(dtype)
    exact = narrow[narrow.isfinite()].double().sort().values.unique()
    ties = (exact[1:] + exact[:-1]) / 2
    largest = exact[-1] + (exact[-1] - exact[-2]) / 2  # and from there on infinity
    points = torch.cat([exact, ties, largest[None], -largest[None]])
    bits = torch.randint(-(2**31), 2**31, (50_000,), generator=torch.Generator().manual_seed(0))
    random = bits.to(torch.int32).view(torch.float32).double()
    special = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan, 1e-300, -1e300]).double()
    if wide == "float":
        near = [points.float().nextafter(torch.tensor(to)).double() for to in (-9e38, 9e38)]
        values = torch.cat([points, *near, random, special]).float()
        expected = values.to(dtype)
    else:
        near = [points.nextafter(torch.tensor(to).double()) for to in (-9e99, 9e99)]
        values = torch.cat([points, *near, random, special])
        expected = nearest(values, exact, largest).to(dtype)
    result = convert(harness, f"{wide}_to_{name}", values.numpy(), "uint16")
    narrowed = torch.from_numpy(result.view(np.int16)).view(dtype)
    assert torch.equal(narrowed.isnan(), expected.isnan())
    numbers = ~expected.isnan()
    assert torch.equal(narrowed[numbers].view(torch.int16), expected[numbers].view(torch.int16))
    assert (result[values.isnan().numpy()] == 0x7FFF).all()


def nearest(values: torch.Tensor, exact: torch.Tensor, largest: torch.Tensor) -> torch.Tensor:
    """The nearest of the sorted exact values, ties to even, because torch rounds float64 twice."""
    above = torch.searchsorted(exact, values).clamp(1, len(exact) - 1)
    low, high = exact[above - 1], exact[above]
    middle = (low + high) / 2
    # Neighbours stand at places of different parity, zero (whose place is even) in the middle.
    zero = int((exact == 0).nonzero()[0])
    even = torch.where((above - zero) % 2 == 0, high, low)
    rounded = torch.where(values < middle, low, torch.where(values > middle, high, even))
    rounded = torch.where(values.abs() >= largest, values.sign() * torch.inf, rounded)
    return torch.where(values.isnan(), values, rounded.abs().copysign(values))


@pytest.mark.parametrize("x", [0, 1, 0x80000000, 0xFFFFFFFF, 0x12345678])
def test_integer_functions(harness: Runtime, x: int) -> None:
    out = np.zeros(7, dtype=np.int64)
    harness.library.integer_functions(c_uint(x), pointer(out))
    bits = f"{x:032b}"
    expected = [bits.count("1"), (x & -x).bit_length(), 32 - x.bit_length(), int(bits[::-1], 2)]
    expected += [x * 0xDEADBEEF >> 32, x & 0x7F7FFFFF, min(x, 1000) + max(x >> 1, 5)]
    assert out.tolist() == expected


def test_switching_by_ucontext(harness: Runtime) -> None:
    portable = load(simt_build.build_cases("ucontext.so", "-DSIMT_UCONTEXT"))
    for case in ("no_missing_barrier", "last_block", "independent_masks", "early_exit"):
        assert portable.run_case(case) == harness.run_case(case)
