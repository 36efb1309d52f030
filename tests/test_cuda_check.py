"""The checks of the GPU kernels' machine code must find what they look for, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import check_cuda
import pytest
from check_cuda import faults
from cuda_build import choose_toolkit
from machine_code import (
    Instruction,
    Kernel,
    loads_in_flight,
    parse_kernels,
    parse_sass,
    read_kernels,
    short,
)

STREAM = ("LDG.E.128.CONSTANT", "FADD.FTZ", "STG.E.128", "EXIT")
SASS = """
	code for sm_90
		Function : _ZN7selkern4cuda12_GLOBAL__N_110add_kernelIfEEvPT_
	.headerflags	@"EF_CUDA_SM90 EF_CUDA_VIRTUAL_SM(EF_CUDA_SM90)"
        /*0000*/                   LDC R1, c[0x0][0x28] ;    /* 0x00000a00ff017b82 */
                                                             /* 0x000fe20000000800 */
        /*0010*/              @!P0 LDG.E.128 R4, desc[UR4][R2.64] ;    /* 0x0000840000047ab9 */
                                                             /* 0x001ea8000c1e1d00 */
        /*0020*/               @P1 EXIT ;                    /* 0x000000000000794d */
		Function : other
        /*0000*/             @!UPT UIADD3 URZ, UR4, 0x1, URZ ;    /* 0x0000840000047ab9 */
"""
USAGE = """
Resource usage:
 Common:
  GLOBAL:0
 Function _ZN7selkern4cuda12_GLOBAL__N_110add_kernelIfEEvPT_:
  REG:20 STACK:16 SHARED:1028 LOCAL:8 CONSTANT[0]:552 TEXTURE:0 SURFACE:0 SAMPLER:0
 Function other:
  REG:8 STACK:0 SHARED:0 LOCAL:0 CONSTANT[0]:552 TEXTURE:0 SURFACE:0 SAMPLER:0
"""
ELF = """
.nv.info._ZN7selkern4cuda12_GLOBAL__N_110add_kernelIfEEvPT_
	<0x1>
	Attribute:	EIATTR_MAX_THREADS
	Format:	EIFMT_SVAL
	Value:	0x80 0x2 0x1
	<0x2>
.nv.info.other
	<0x1>
	Attribute:	EIATTR_REGCOUNT
	Format:	EIFMT_SVAL
	Value:	function: other(0x10)	register count: 8
"""
FLOAT64 = ["DADD", "DMUL.RZ", "DFMA", "DSETP.GT.AND", "DMNMX", "MUFU.RCP64H", "MUFU.RSQ64H"]
FLOAT64 += ["F2F.F64.F32", "F2F.F32.F64", "I2F.F64", "I2F.F64.S64", "F2I.S64.F64.TRUNC"]
FLOATING_ATOMICS = ["REDG.E.ADD.F32.FTZ.RN.STRONG.GPU", "RED.E.ADD.F64.RN.STRONG.GPU"]
FLOATING_ATOMICS += ["ATOM.E.ADD.BF16x2.RN.STRONG.GPU", "ATOMG.E.ADD.BF16_V2.RN.STRONG.GPU"]
FLOATING_ATOMICS += ["ATOMG.E.ADD.F16x2.RN.STRONG.GPU", "ATOMS.ADD.F32"]


def kernel(*opcodes: str, name: str = "add_kernel<float>", **resources: int | None) -> Kernel:
    return Kernel(name, opcodes, threads=256, **resources)


class TestReading:
    def test_kernel(self) -> None:
        add, other = parse_kernels(SASS, USAGE, ELF)
        assert add == Kernel(
            name="add_kernel<float>",
            opcodes=("LDC", "LDG.E.128", "EXIT"),
            wide_loads_in_flight=(1,),
            registers=20,
            stack_bytes=16,
            local_bytes=8,
            shared_bytes=4,
            threads=256,
        )
        assert other == Kernel("other", ("UIADD3",), registers=8)

    def test_dynamic_shared_memory(self) -> None:
        # What the block itself reserves, and nothing else.
        [_, other] = parse_kernels(SASS, USAGE.replace("SHARED:0", "SHARED:1024"), ELF)
        assert other.shared_bytes is None

    def test_opcode_without_operands(self) -> None:
        assert parse_sass("Function : f\n  /*0000*/  EXIT ;") == {"f": [Instruction("EXIT")]}

    def test_barriers(self) -> None:
        _, load, _ = parse_sass(SASS)["_ZN7selkern4cuda12_GLOBAL__N_110add_kernelIfEEvPT_"]
        assert load == Instruction("LDG.E.128", raises=2, awaits=frozenset({0}))

    def test_short_name(self) -> None:
        name = "void selkern::cuda::(anonymous namespace)::f<float, 4>(selkern::cuda::P<2>)"
        assert short(name) == "f<float, 4>"
        assert short("void selkern::_GLOBAL__N__1a2b_4_x_cu_3c::f<double>(int)") == "f<double>"


class TestLoadsInFlight:
    LOADS = tuple(Instruction("LDG.E.128", raises=barrier) for barrier in (0, 1, 2, 1))

    @staticmethod
    def use(*barriers: int) -> Instruction:
        return Instruction("FADD", awaits=frozenset(barriers))

    def test_before_the_first_use(self) -> None:
        assert loads_in_flight([*self.LOADS, self.use(0), self.use(1, 2)]) == (4, 4, 4, 4)

    def test_one_after_another(self) -> None:
        pairs = [(load, self.use(load.raises)) for load in self.LOADS]
        assert loads_in_flight([each for pair in pairs for each in pair]) == (1, 1, 1, 1)

    def test_one_is_used_while_others_are_under_way(self) -> None:
        first, second, third, fourth = self.LOADS
        assert loads_in_flight([first, second, self.use(0), third, fourth]) == (2, 3, 3, 3)

    def test_narrow_loads_do_not_count(self) -> None:
        assert loads_in_flight([Instruction("LDG.E.64", raises=0), self.LOADS[1]]) == (1,)


class TestRules:
    def test_nothing_to_find(self) -> None:
        assert not list(faults(kernel(*STREAM)))

    @pytest.mark.parametrize("opcode", ["STL", "STL.128", "LDL.LU", "LDL.64"])
    def test_local_memory(self, opcode: str) -> None:
        [fault] = faults(kernel(opcode, opcode))
        assert fault == f"reads or writes local memory: {opcode} x 2"

    @pytest.mark.parametrize("resources", [{"stack_bytes": 8}, {"local_bytes": 8}])
    def test_local_memory_that_is_only_reserved(self, resources: dict[str, int]) -> None:
        [fault] = faults(kernel(**resources))
        assert "takes 8 bytes of local memory" in fault

    @pytest.mark.parametrize("opcode", FLOAT64)
    def test_float64_arithmetic(self, opcode: str) -> None:
        [fault] = faults(kernel(opcode))
        assert "64-bit arithmetic" in fault
        assert f"{opcode} x 1" in fault
        assert not list(faults(kernel(opcode, name="add_kernel<double, 4>")))

    @pytest.mark.parametrize(
        "opcode", ["DEPBAR.LE", "LDG.E.64", "I2F.S64", "F2F.F32.F16", "MUFU.RCP", "IMAD.WIDE"]
    )
    def test_other_arithmetic(self, opcode: str) -> None:
        assert not list(faults(kernel(opcode)))

    @pytest.mark.parametrize("opcode", FLOATING_ATOMICS)
    def test_floating_atomic(self, opcode: str) -> None:
        [fault] = faults(kernel(opcode, name="add_kernel<double>"))
        assert "floating-point atomic" in fault

    @pytest.mark.parametrize(
        "opcodes",
        [
            ("LDS", "FADD", "ATOMS.CAST.SPIN"),
            ("LDS.64", "DADD", "ATOMS.CAST.SPIN.64"),
            ("LDS", "HADD2", "PRMT", "ATOMS.CAST.SPIN"),
            ("LDG.E", "FMNMX", "ATOMG.E.CAS.STRONG.GPU"),
        ],
    )
    def test_floating_atomic_by_compare_and_swap(self, opcodes: tuple[str, ...]) -> None:
        [fault] = faults(kernel(*opcodes, name="add_kernel<double>"))
        assert "floating-point atomic" in fault
        assert opcodes[-1] in fault

    @pytest.mark.parametrize(
        "opcodes",
        [
            ("ATOMS.ADD",),
            ("ATOMS.POPC.INC.32",),
            ("REDG.E.ADD.STRONG.GPU",),
            ("ATOMG.E.INC.STRONG.GPU",),
            ("FADD", "LDS.64", "IADD3", "IADD3.X", "ATOMS.CAST.SPIN.64"),
            ("REDUX.SUM",),
        ],
    )
    def test_integer_atomic(self, opcodes: tuple[str, ...]) -> None:
        assert not list(faults(kernel(*opcodes)))

    @pytest.mark.parametrize(
        ("name", "loads", "stores"),
        [
            ("spatial_means_kernel<float, 24>", 36, 0),
            ("spatial_means_kernel<double, 192>", 48, 0),
            ("spatial_mean_kernel<float, RowGroups>", 4, 0),
            ("spatial_mean_kernel<float, UnitsLastScalar>", 0, 0),
            ("relu_with_mean_kernel<float, LongRows>", 4, 4),
            ("relu_with_mean_kernel<float, UnitsLastScalar>", 0, 0),
            ("relu_with_mean_backward_kernel<float, UnitsLast>", 8, 4),
            ("relu_with_mean_backward_kernel<float, UnitsLastScalar>", 0, 0),
            ("class_means_kernel<float, 4>", 4, 0),
            ("class_means_kernel<float, 1>", 0, 0),
            ("class_means_backward_kernel<float, 4>", 0, 1),
            ("center_kernel<__half>", 8, 4),
            ("basis_spectrum_kernel<double>", 4, 0),
            ("class_order_kernel", 0, 0),
        ],
    )
    def test_narrow_accesses(self, name: str, loads: int, stores: int) -> None:
        wide = ["LDG.E.128.CONSTANT"] * loads + ["STG.E.128"] * stores
        narrow = ["LDG.E.64", "LDG.E.LTC128B.CONSTANT", "STG.E"]
        assert not list(faults(kernel(*wide, *narrow, name=name)))
        found = list(faults(kernel(*wide[1:-1], *narrow, name=name)))
        assert len(found) == (loads > 0) + (stores > 0)
        assert all("streams, and has" in fault for fault in found)

    def test_few_loads_in_flight(self) -> None:
        loads, name = ("LDG.E.128",) * 4, "class_means_kernel<float, 4>"
        [fault] = faults(kernel(*loads, name=name, wide_loads_in_flight=(4, 3, 4, 4)))
        assert fault == "streams, and has a 128-bit load with only 3 in flight"
        assert not list(faults(kernel(*loads, name=name, wide_loads_in_flight=(4, 4, 5, 4))))

    def test_no_launch_bounds(self) -> None:
        [fault] = faults(Kernel("add_kernel<float>", STREAM))
        assert "no __launch_bounds__" in fault

    def test_renamed_kernel(self) -> None:
        named = ["spatial_means_kernel<float, 24>", "spatial_means_kernel<double, 24>"]
        named += ["spatial_mean_kernel<float, RowGroups>", "relu_with_mean_kernel<float, LongRows>"]
        named += ["relu_with_mean_backward_kernel<float, UnitsLast>"]
        named += ["class_means_kernel<float, 4>", "class_means_backward_kernel<float, 4>"]
        named += ["center_kernel<float>", "basis_spectrum_kernel<float>"]
        named += ["linf_step_kernel<float, 4>"]
        named += ["l2_sums_kernel<float, 4>", "l2_step_kernel<float, 4>"]
        kernels = [Kernel(name, ()) for name in named]
        assert not list(check_cuda.missing_kernels(kernels))
        assert len(list(check_cuda.missing_kernels(kernels[1:]))) == 1


class TestTable:
    def test_difference_is_shown_and_accepted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(check_cuda, "TABLE", tmp_path / "table.md")
        before = [kernel(registers=40), kernel(name="other", registers=8)]
        after = [kernel(registers=42), kernel(name="other", registers=8)]
        occupancy = ["6 registers", "8 threads"]
        kept = check_cuda.table(before, occupancy, "13.0.88")
        assert "| `add_kernel<float>` | 40 | 0 | 256 | 6 | registers | 0 |  | 0 |" in kept
        assert check_cuda.compare(kept, update=False)
        assert not check_cuda.compare(kept, update=True)
        assert not check_cuda.compare(kept, update=False)
        changes = check_cuda.compare(check_cuda.table(after, occupancy, "13.0.88"), update=False)
        assert [line for line in changes if line.startswith(("-|", "+|"))] == [
            "-| `add_kernel<float>` | 40 | 0 | 256 | 6 | registers | 0 |  | 0 |",
            "+| `add_kernel<float>` | 42 | 0 | 256 | 6 | registers | 0 |  | 0 |",
        ]

    def test_dynamic_shared_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def occupancy(kernels: list[Kernel], toolkit: Path) -> list[str]:
            return [f"{each.registers} threads" for each in kernels]

        monkeypatch.setattr(check_cuda, "_occupancy", occupancy)
        kernels = [kernel(registers=1), kernel(shared_bytes=None), kernel(registers=2)]
        resident = check_cuda.resident_blocks(kernels, Path())
        assert resident == ["1 threads", "", "2 threads"]
        row = check_cuda.table(kernels, resident, "13.0.88").splitlines()[-2]
        assert row == "| `add_kernel<float>` | 0 | dynamic | 256 |  |  | 0 |  | 0 |"


PRELUDE = """
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define KERNEL __global__ void __launch_bounds__(128)
"""
STREAMING_KERNEL = """
template <typename T, int width> KERNEL class_means_kernel(const float4* x, float* y) {
  float sum = 0;
  for (int i = 0; i < 4; ++i) {
    const float4 value = x[i * 128 + threadIdx.x];
    sum += value.x + value.y + value.z + value.w;
  }
  y[threadIdx.x] = sum;
}
template __global__ void class_means_kernel<float, 4>(const float4*, float*);
"""
STORING_KERNEL = """
template <typename T, int width> KERNEL class_means_backward_kernel(const float* x, float4* y) {
  y[threadIdx.x] = {x[threadIdx.x], 1, 2, 3};
}
template __global__ void class_means_backward_kernel<float, 4>(const float*, float4*);
"""
FAULTY = {
    "local memory": """
        KERNEL f(const float* x, float* y, int n) {
          float kept[64];
          for (int i = 0; i < 64; ++i) kept[i] = x[i * 128 + threadIdx.x];
          for (int i = 0; i < n; ++i) y[i * 128 + threadIdx.x] = kept[(7 * i + n) & 63];
        }""",
    "64-bit arithmetic": """
        KERNEL f(float* y, float c) { y[threadIdx.x] = float(0.1 * y[threadIdx.x] + c); }""",
    "floating-point atomic": "KERNEL f(float* y) { atomicAdd(y, float(threadIdx.x)); }",
    "floating-point atomic, whose": """
        KERNEL f(float* y) {
          __shared__ float sum;
          sum = 0;
          __syncthreads();
          atomicAdd(&sum, y[threadIdx.x]);
          __syncthreads();
          y[threadIdx.x] = sum;
        }""",
    "floating-point atomic, whose order": """
        KERNEL f(__nv_bfloat162* y, __nv_bfloat162 x) { atomicAdd(y + threadIdx.x, x); }""",
    "0 128-bit loads": STREAMING_KERNEL.replace(" + value.z + value.w", ""),
    "only 1 in flight": STREAMING_KERNEL.replace("value = x[i * 128", "value = x[int(sum) * 128"),
    "0 128-bit stores": STORING_KERNEL.replace("float4", "float2").replace(", 2, 3", ""),
    "no __launch_bounds__": "__global__ void f(float* y) { y[threadIdx.x] = 1; }",
}
SOUND = {
    "streaming": STREAMING_KERNEL + STORING_KERNEL,
    "double": """
        template <typename T> KERNEL f(T* y, T c) { y[threadIdx.x] = T(0.1) * y[threadIdx.x] + c; }
        template __global__ void f<double>(double*, double);
        template __global__ void f<float>(float*, float);""",
    "integer atomics": """
        KERNEL f(unsigned long long* n, const float* x, float* y) {
          __shared__ unsigned long long count;
          count = 0;
          __syncthreads();
          if (x[threadIdx.x] + x[threadIdx.x + 1] > 0) atomicAdd(&count, 1ull);
          __syncthreads();
          atomicAdd(n, count);
          y[threadIdx.x] = x[threadIdx.x] + float(count);
        }""",
}
compiled = pytest.mark.skipif(
    not all(map(shutil.which, ("nvcc", "cuobjdump", "nvdisasm"))),
    reason="nvcc, cuobjdump and nvdisasm are not on PATH",
)


def compile_kernel(source: str, folder: Path) -> list[Kernel]:
    path = folder / "kernel.cu"
    path.write_text(PRELUDE + source)
    cubin = path.with_suffix(".cubin")
    subprocess.run(["nvcc", "-arch=sm_90", "-cubin", str(path), "-o", str(cubin)], check=True)
    return read_kernels(cubin)


@compiled
class TestCompiled:
    @pytest.mark.parametrize(("fault", "source"), FAULTY.items(), ids=FAULTY)
    def test_fault_is_found(self, fault: str, source: str, tmp_path: Path) -> None:
        [kernel] = compile_kernel(source, tmp_path)
        assert any(fault in found for found in faults(kernel))

    @pytest.mark.parametrize("source", SOUND.values(), ids=SOUND)
    def test_sound_kernel_passes(self, source: str, tmp_path: Path) -> None:
        for kernel in compile_kernel(source, tmp_path):
            assert not list(faults(kernel))

    def test_resources(self, tmp_path: Path) -> None:
        source = """
            KERNEL f(float* y) {
              __shared__ float values[128];
              values[threadIdx.x] = y[threadIdx.x];
              __syncthreads();
              y[threadIdx.x] = values[127 - threadIdx.x];
            }"""
        [kernel] = compile_kernel(source, tmp_path)
        assert (kernel.threads, kernel.shared_bytes) == (128, 512)
        toolkit = choose_toolkit((13, 0), os.environ)
        assert check_cuda.resident_blocks([kernel], toolkit.home) == ["16 threads"]

    def test_dynamic_shared_memory(self, tmp_path: Path) -> None:
        source = """
            KERNEL f(float* y) {
              extern __shared__ float values[];
              values[threadIdx.x] = y[threadIdx.x];
              __syncthreads();
              y[threadIdx.x] = values[127 - threadIdx.x];
            }"""
        [kernel] = compile_kernel(source, tmp_path)
        assert kernel.shared_bytes is None
        [kernel] = compile_kernel("KERNEL g(float* y) { y[threadIdx.x] = 1; }", tmp_path)
        assert kernel.shared_bytes == 0


@compiled
def test_spill_stops_the_compiler(tmp_path: Path) -> None:
    source = tmp_path / "kernel.cu"
    source.write_text("""
        __global__ void __launch_bounds__(128, 16) f(const float* x, float* y) {
          float kept[200];
          #pragma unroll
          for (int i = 0; i < 200; ++i) kept[i] = x[i * 128 + threadIdx.x];
          __syncthreads();
          #pragma unroll
          for (int i = 0; i < 200; ++i) y[i * 128 + threadIdx.x] = kept[i] * kept[(i + 7) % 200];
        }""")
    command = ["nvcc", "-arch=sm_90", "-cubin", str(source), "-o", str(tmp_path / "kernel.cubin")]
    finished = subprocess.run(
        [*command, "-Xptxas", "--warn-on-spills,-Werror"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode != 0
    assert "spill" in finished.stderr
