from __future__ import annotations

from collections.abc import Iterator

import pytest
import simt_build
import torch
import torch._functorch.config
import torch._inductor.config
from emulator import OPERATOR_MODULES, Runtime, load, load_operators, operators_runtime
from networks import NUM_CLASSES, Network

from selkern import _C, _crossover

SHARED_MEMORY_OF_H200 = 227 * 1024

CAPABILITIES = _C.supported_cpu_capabilities()


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def restore_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def restore_capability() -> Iterator[None]:
    capability = _C.cpu_capability()
    yield
    _C.set_cpu_capability(capability)


@pytest.fixture(params=CAPABILITIES)
def capability(request: pytest.FixtureRequest, restore_capability: None) -> str:
    """Run the test once with the kernels of every instruction set this machine has."""
    _C.set_cpu_capability(request.param)
    return request.param


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """Let every operator execute its CUDA kernels on the CPU."""
    operators = load_operators()
    for module in OPERATOR_MODULES:
        monkeypatch.setattr(module, "_ops", operators)
    monkeypatch.setattr(_crossover, "shared_memory", lambda device: SHARED_MEMORY_OF_H200)
    runtime = operators_runtime()
    runtime.reset()
    return runtime


@pytest.fixture(scope="session")
def harness() -> Runtime:
    """The emulator with the kernels of its own tests."""
    return load(simt_build.build_cases())


@pytest.fixture(params=["emulated", "cuda"] if torch.cuda.is_available() else ["emulated"])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Run the test on the emulated CUDA kernels, and on a GPU where there is one."""
    if request.param == "emulated":
        request.getfixturevalue("emulator")
        return torch.device("cpu")
    return torch.device("cuda")


@pytest.fixture(params=["cpu", "emulated", *(["cuda"] if torch.cuda.is_available() else [])])
def anywhere(request: pytest.FixtureRequest) -> torch.device:
    """Run the test on the kernels of the CPU too, and otherwise as with `device`."""
    if request.param == "emulated":
        request.getfixturevalue("emulator")
    return torch.device("cuda" if request.param == "cuda" else "cpu")


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    """Compile everything anew: cached graphs bring the guards of earlier tests along."""
    with (
        torch._inductor.config.patch(fx_graph_cache=False),
        torch._functorch.config.patch(enable_autograd_cache=False),
    ):
        torch.compiler.reset()
        yield
        torch.compiler.reset()


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return Network()


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(8, 3, 6, 6, generator=generator), torch.arange(8) % NUM_CLASSES
