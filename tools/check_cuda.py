"""Checks the machine code of selkern's CUDA part for sm_90, kernel by kernel, without a GPU.

Compares the resources of the kernels with a table that is kept in the repository.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from machine_code import WIDE_LOAD, Kernel, read_kernels

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "csrc" / "cuda" / "resources_sm_90.md"
UPDATE = "make cuda-check ARGS=--update"

# Kernels that stream through activations, by name and leading template arguments: how many
# instructions at least load, and store, 128 bits. Each way to walk over maps has four loads in
# flight; the kernel for many layers has three ways for each dtype, the gradient of relu two inputs.
STREAMING = {
    r"spatial_means_kernel<float\b": {"load": 3 * 3 * 4},
    r"spatial_means_kernel<double\b": {"load": 4 * 3 * 4},
    r"spatial_mean_kernel<[^,]+, (?!UnitsLastScalar\b)": {"load": 4},
    r"relu_with_mean_kernel<[^,]+, (?!UnitsLastScalar\b)": {"load": 4, "store": 4},
    r"relu_with_mean_backward_kernel<[^,]+, (?!UnitsLastScalar\b)": {"load": 4 * 2, "store": 4},
    r"class_means_kernel<[^,]+, (?!1\b)": {"load": 4},
    r"class_means_backward_kernel<[^,]+, (?!1\b)": {"store": 1},
    # Twice over the samples.
    r"center_kernel\b": {"load": 2 * 4, "store": 4},
    r"basis_spectrum_kernel\b": {"load": 4},
    # Three inputs.
    r"linf_step_kernel<[^,]+, (?!1\b)": {"load": 3 * 4, "store": 4},
    r"l2_sums_kernel<[^,]+, (?!1\b)": {"load": 3 * 4},
    r"l2_step_kernel<[^,]+, (?!1\b)": {"load": 3 * 4, "store": 4},
}
# Of these a thread asks for so many loads at least before it waits for the first.
LEAST_IN_FLIGHT = 4
# What a GPU has no use for: it takes eigenvalues as its solver gives them.
ON_THE_CPU_ALONE = {"selkern::rayleigh_quotients"}
WIDE = {"load": WIDE_LOAD, "store": re.compile(r"STG\..*\b128\b")}

LOCAL_MEMORY = re.compile(r"(STL|LDL)\b")
FLOAT64 = re.compile(r"D(ADD|MUL|FMA|SETP|SET|MNMX|MMA)\b|.*\.F64\b|MUFU\..*64H\b")
ATOMIC = re.compile(r"(ATOM|ATOMG|ATOMS|RED|REDG|REDAS)\b")
FLOATING = re.compile(r"\.(F16|F32|F64|BF16|BF16_V2)(x\d)?\b")
# Floats in shared memory are added by a loop that loads, adds and swaps, as are 64-bit integers.
COMPARE_AND_SWAP = re.compile(r"ATOM[GS]?\..*\bCAST?\b")
LOAD = re.compile(r"LD[GS]?\b|ATOM")
FLOAT_ARITHMETIC = re.compile(r"[FDH](ADD|MUL|FMA|MNMX)2?\b")


def faults(kernel: Kernel) -> Iterator[str]:
    """Yield what is wrong with a kernel."""
    if kernel.stack_bytes or kernel.local_bytes:
        bytes_taken = kernel.stack_bytes + kernel.local_bytes
        yield f"takes {bytes_taken} bytes of local memory a thread: spilled or indexed registers"
    if found := _matching(kernel, LOCAL_MEMORY):
        yield f"reads or writes local memory: {found}"
    # The parameters' types say what a kernel computes in: where one is double, it may.
    if not re.search(r"\bdouble\b", kernel.name) and (found := _matching(kernel, FLOAT64)):
        yield f"has 64-bit arithmetic, though no template argument is double: {found}"
    if found := _listed(_floating_atomics(kernel.opcodes)):
        yield f"has a floating-point atomic, whose order changes from run to run: {found}"
    yield from _slow_accesses(kernel)
    if kernel.threads is None:
        yield "has no __launch_bounds__, so that its resident blocks are unknown"


def _slow_accesses(kernel: Kernel) -> Iterator[str]:
    for name, accesses in STREAMING.items():
        if re.match(name, kernel.name):
            for access, least in accesses.items():
                if (count := wide_accesses(kernel, access)) < least:
                    yield f"streams, and has {count} 128-bit {access}s of at least {least}"
            fewest = min(kernel.wide_loads_in_flight, default=LEAST_IN_FLIGHT)
            if fewest < LEAST_IN_FLIGHT:
                yield f"streams, and has a 128-bit load with only {fewest} in flight"


def wide_accesses(kernel: Kernel, access: str) -> int:
    """Return how many instructions load, or store, 128 bits of global memory."""
    return sum(WIDE[access].match(opcode) is not None for opcode in kernel.opcodes)


def _floating_atomics(opcodes: Sequence[str]) -> Iterator[str]:
    has_added_floats = False
    for opcode in opcodes:
        swaps_floats = has_added_floats and COMPARE_AND_SWAP.match(opcode)
        if swaps_floats or (ATOMIC.match(opcode) and FLOATING.search(opcode)):
            yield opcode
        if LOAD.match(opcode):
            has_added_floats = False
        elif FLOAT_ARITHMETIC.match(opcode):
            has_added_floats = True


def _matching(kernel: Kernel, pattern: re.Pattern[str]) -> str:
    return _listed(opcode for opcode in kernel.opcodes if pattern.match(opcode))


def _listed(opcodes: Iterable[str]) -> str:
    return ", ".join(f"{opcode} x {count}" for opcode, count in sorted(Counter(opcodes).items()))


def missing_kernels(kernels: Sequence[Kernel]) -> Iterator[str]:
    """Yield the streaming kernels that are not there: a new name would escape the check."""
    for name in STREAMING:
        if not any(re.match(name, kernel.name) for kernel in kernels):
            yield f"no kernel is named {name}, as STREAMING says"


def unregistered() -> list[str]:
    """Return selkern's operators that have no kernel for CUDA in this torch."""
    import selkern

    if not selkern.build_info()["cuda_loaded"]:
        return ["all of them, because selkern._cuda is not loaded"]
    names = [each for each in torch._C._dispatch_get_all_op_names() if each.startswith("selkern::")]
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    missing = {name for name in names if not has_kernel(name, "CUDA")}
    return sorted(missing - ON_THE_CPU_ALONE)


def resident_blocks(kernels: Sequence[Kernel], toolkit: Path) -> list[str]:
    """Return, for each kernel, how many of its blocks an SM holds and what the limit is.

    Nothing is known of kernels whose launches decide on the shared memory.
    """
    known = [kernel for kernel in kernels if kernel.shared_bytes is not None]
    found = iter(_occupancy(known, toolkit))
    return ["" if kernel.shared_bytes is None else next(found) for kernel in kernels]


def _occupancy(kernels: Sequence[Kernel], toolkit: Path) -> list[str]:
    lines = [f"{each.threads} {each.registers} {each.shared_bytes}" for each in kernels]
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "occupancy"
        include = f"-I{toolkit / 'include'}"
        source = str(Path(__file__).with_name("occupancy.cpp"))
        compiler = os.environ.get("CXX", "c++")
        subprocess.run([compiler, "-std=c++17", include, source, "-o", str(program)], check=True)
        finished = subprocess.run(
            [program], input="\n".join(lines), stdout=subprocess.PIPE, text=True, check=True
        )
    return finished.stdout.splitlines()


def table(kernels: Sequence[Kernel], occupancy: Sequence[str], nvcc: str) -> str:
    """Return the table of resources, in Markdown."""
    rows = [
        f"Kernels compiled for sm_90 by nvcc {nvcc}, and how many blocks of each a multiprocessor"
        " of an H100 or H200",
        "holds by the toolkit's occupancy formula. Dynamic shared memory, and with it the number of"
        " blocks, depends on",
        f"the size of each launch's problem. `{UPDATE}` writes this file anew.",
        "",
        "| kernel | registers | shared memory, bytes | threads | resident blocks | limited by |"
        " 128-bit loads | in flight | 128-bit stores |",
        "|---|---:|---:|---:|---:|---|---:|---:|---:|",
    ]
    for kernel, resident in zip(kernels, occupancy, strict=True):
        blocks, _, limits = resident.partition(" ")
        shared = "dynamic" if kernel.shared_bytes is None else kernel.shared_bytes
        used = f"{kernel.registers} | {shared} | {kernel.threads}"
        loads, stores = wide_accesses(kernel, "load"), wide_accesses(kernel, "store")
        in_flight = min(kernel.wide_loads_in_flight, default="")
        wide = f"{loads} | {in_flight} | {stores}"
        rows.append(f"| `{kernel.name}` | {used} | {blocks} | {limits} | {wide} |")
    return "\n".join(rows) + "\n"


def compare(regenerated: str, update: bool) -> list[str]:
    """Return what differs from the table in the repository; on demand, write it there."""
    if update:
        TABLE.write_text(regenerated, encoding="utf-8")
    kept = TABLE.read_text(encoding="utf-8") if TABLE.exists() else ""
    before, after = kept.splitlines(), regenerated.splitlines()
    return list(
        difflib.unified_diff(before, after, "in the repository", "compiled now", n=0, lineterm="")
    )


def nvcc_version(toolkit: Path) -> str:
    command = [str(toolkit / "bin" / "nvcc"), "--version"]
    text = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return re.search(r"V([\d.]+)", text)[1]


def check(binary: Path, toolkit: Path, update: bool) -> list[str]:
    """Return a message for each fault, and one for the changes of the table."""
    kernels = read_kernels(binary)
    problems = [f"{name} is not registered for CUDA" for name in unregistered()]
    problems += missing_kernels(kernels)
    problems += [f"{kernel.name} {fault}" for kernel in kernels for fault in faults(kernel)]
    bounded = [kernel for kernel in kernels if kernel.threads is not None]
    occupancy = resident_blocks(bounded, toolkit)
    changes = compare(table(bounded, occupancy, nvcc_version(toolkit)), update)
    if changes:
        changed = f"the kernels' resources changed; `{UPDATE}` accepts them:"
        problems.append("\n".join([changed, *changes]))
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", type=Path, help="the shared object selkern._cuda")
    parser.add_argument("--toolkit", type=Path, required=True, help="root folder of the toolkit")
    parser.add_argument("--update", action="store_true", help=f"write {TABLE.name} anew")
    arguments = parser.parse_args()
    toolkit = arguments.toolkit.resolve()
    # cuobjdump calls nvdisasm.
    os.environ["PATH"] = os.pathsep.join([str(toolkit / "bin"), os.environ["PATH"]])
    problems = check(arguments.binary, toolkit, arguments.update)
    print(*problems, f"{arguments.binary.name}: problems found: {len(problems)}", sep="\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
