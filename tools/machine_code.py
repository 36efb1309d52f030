"""Kernels of a CUDA binary: their machine code and the resources they take."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

# What a block that has shared memory takes besides from compute capability 9.0 on, and cuobjdump
# counts.
RESERVED_SHARED_BYTES = 1024

_INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*\S*)")
# The upper half of an instruction's 128 bits.
_CONTROL = re.compile(r"^\s+/\* 0x([0-9a-f]{16}) \*/")
_BARRIERS = 6
WIDE_LOAD = re.compile(r"LDG(STS)?\..*\b128\b")


class Instruction(NamedTuple):
    """An opcode with its modifiers, and how the hardware keeps it in order.

    What takes its time, like a load, raises one of six barriers and lowers it when it is done;
    later instructions say which barriers they wait for.
    """

    opcode: str
    raises: int | None = None
    awaits: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Kernel:
    """A kernel: opcodes with their modifiers, and what a block of it takes."""

    name: str
    opcodes: tuple[str, ...]
    # Of each load of 128 bits: how many are under way together while it is.
    wide_loads_in_flight: tuple[int, ...] = ()
    registers: int = 0
    stack_bytes: int = 0
    local_bytes: int = 0
    # None where each launch decides: a kernel has either such shared memory or its own.
    shared_bytes: int | None = 0
    # None where the kernel has no __launch_bounds__.
    threads: int | None = None


def read_kernels(binary: Path) -> list[Kernel]:
    """Return the kernels of a shared object, an object file or a cubin, sorted by name."""
    return parse_kernels(
        _cuobjdump("-sass", binary),
        _cuobjdump("--dump-resource-usage", binary),
        _cuobjdump("-elf", binary),
    )


def _cuobjdump(option: str, binary: Path) -> str:
    command = ["cuobjdump", option, str(binary)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def parse_kernels(sass: str, usage: str, elf: str) -> list[Kernel]:
    """Put together what cuobjdump tells with -sass, --dump-resource-usage and -elf."""
    code = parse_sass(sass)
    resources = parse_usage(usage)
    threads = parse_threads(elf)
    names = dict(zip(code, demangle(list(code))))
    kernels = []
    for symbol, instructions in code.items():
        used = resources[symbol]
        kernels.append(
            Kernel(
                name=short(names[symbol]),
                opcodes=tuple(instruction.opcode for instruction in instructions),
                wide_loads_in_flight=loads_in_flight(instructions),
                registers=used["REG"],
                stack_bytes=used["STACK"],
                local_bytes=used["LOCAL"],
                shared_bytes=_own_shared_bytes(used["SHARED"]),
                threads=threads.get(symbol),
            )
        )
    return sorted(kernels, key=lambda kernel: _in_order(kernel.name))


def _own_shared_bytes(counted: int) -> int | None:
    """Return the shared memory of a kernel's own from what cuobjdump counts."""
    return None if counted == RESERVED_SHARED_BYTES else max(0, counted - RESERVED_SHARED_BYTES)


def _in_order(name: str) -> list[tuple[str, int]]:
    """Return a key that sorts by the value of the numbers in a name."""
    return [(text, int(number or -1)) for text, number in re.findall(r"(\D+)(\d*)", name)]


def parse_sass(text: str) -> dict[str, list[Instruction]]:
    """Return the instructions of each function."""
    functions: dict[str, list[Instruction]] = {}
    for line in text.splitlines():
        if "Function :" in line:
            current = functions.setdefault(line.partition(":")[2].strip(), [])
        elif instruction := _INSTRUCTION.match(line):
            current.append(Instruction(instruction[1].rstrip(";")))
        elif control := _CONTROL.match(line):
            current[-1] = _with_barriers(current[-1].opcode, int(control[1], 16) >> 41)
    return functions


def _with_barriers(opcode: str, control: int) -> Instruction:
    """Read the control bits: 5 of the issue, the barrier for results, that for operands, a mask."""
    raised, awaited = control >> 5 & 7, control >> 11
    awaits = frozenset(barrier for barrier in range(_BARRIERS) if awaited >> barrier & 1)
    return Instruction(opcode, raised if raised < _BARRIERS else None, awaits)


def loads_in_flight(instructions: Sequence[Instruction]) -> tuple[int, ...]:
    """Return, of each load of 128 bits, how many are under way together while it is.

    Instructions are taken in the order in which they lie.
    """
    most: list[int] = []
    under_way: dict[int | None, list[int]] = {}
    for instruction in instructions:
        for barrier in instruction.awaits:
            under_way.pop(barrier, None)
        if WIDE_LOAD.match(instruction.opcode):
            under_way.setdefault(instruction.raises, []).append(len(most))
            most.append(0)
            together = [load for loads in under_way.values() for load in loads]
            for load in together:
                most[load] = max(most[load], len(together))
    return tuple(most)


def parse_usage(text: str) -> dict[str, dict[str, int]]:
    """Return the resources of each function."""
    found = re.findall(r"^ *Function (\S+):\n(.*)$", text, re.MULTILINE)
    return {
        symbol: {name: int(value) for name, value in re.findall(r"(\w+):(\d+)", line)}
        for symbol, line in found
    }


def parse_threads(text: str) -> dict[str, int]:
    """Return the largest block of each function that has __launch_bounds__."""
    threads = {}
    for section in re.split(r"^\.nv\.info\.", text, flags=re.MULTILINE)[1:]:
        bounds = r"EIATTR_(?:MAX_THREADS|REQNTID)\s+Format:\s+\S+\s+Value:((?: *\t*0x[0-9a-f]+){3})"
        if value := re.search(bounds, section.partition("\n.")[0]):
            x, y, z = (int(size, 16) for size in value[1].split())
            threads[section.split(maxsplit=1)[0]] = x * y * z
    return threads


def demangle(symbols: list[str]) -> list[str]:
    """Return the C++ names of symbols."""
    if not symbols or shutil.which("c++filt") is None:
        return symbols
    listing = subprocess.run(
        ["c++filt"], input="\n".join(symbols), stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    return listing.splitlines()


def short(name: str) -> str:
    """Return a demangled name without its return type, its arguments and our namespaces."""
    name = name.removeprefix("void ").replace("(anonymous namespace)::", "")
    # nvcc's names of unnamed namespaces, which hold a hash of the path.
    name = re.sub(r"\b_(?:GLOBAL__N_|INTERNAL_)\w+::", "", name)
    return name.partition("(")[0].replace("selkern::cuda::", "").replace("selkern::", "")
