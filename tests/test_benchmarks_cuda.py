"""The works that are timed on a GPU, at a small size on the CPU."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("selkern._benchmarks")

from selkern._benchmarks import measure, models, run
from selkern._benchmarks.ceilings import ceilings
from selkern._benchmarks.compare import Comparison
from selkern._benchmarks.gpu_table import gpu_table
from selkern._benchmarks.report import markdown, print_results
from selkern._benchmarks.work import COPY, IN_A_GRAPH, Disagreement, Outcome, Work, contender
from selkern._benchmarks.works import CUDA_HEADLINES, CUDA_WORKS, attacks, spectrum, vendor
from selkern._benchmarks.works.attacks_cuda import AttackStep
from selkern._benchmarks.works.linalg import Eigenvalues
from selkern._benchmarks.works.spectrum import Eigenspectrum
from selkern._benchmarks.works.streaming import streaming_works
from torch import Tensor, nn

from selkern import reference
from selkern.study.residual import ResNet18

pytestmark = [
    pytest.mark.filterwarnings("ignore:index_reduce"),
    pytest.mark.filterwarnings("ignore:Sparse"),
]

SMALL = {
    "relu_stack": {"batch": 12},
    "mean_selectivity": {"batch": 12},
    "class_means_200": {"samples": 96, "units": 16},
    "class_means_1000": {"samples": 96, "units": 16, "num_classes": 20},
    "class_means_70000": {"samples": 96, "units": 2},
    "pgd_attack_resnet20": {"samples": 4, "step_count": 2},
}
STEP = {
    "samples": 16,
    "image_shape": (3, 16, 16),
    "width": 4,
    "num_classes": 5,
    "compile_options": {"backend": "eager"},
}
SMALL |= {"resnet18_step_channels_last": STEP, "resnet18_step_contiguous": STEP}
WITHOUT_GRAPH = {"eigenspectrum_2048x1000", "eigenspectrum_4096x2000", "mlp_step"}
FROZEN = {"samples": 30, "units": 14}
SMALL |= {"frozen_basis_1500x1000": FROZEN, "frozen_basis_3500x2000": FROZEN, "mlp_step": FROZEN}


def small_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """As many ranks as a penalty needs, with the fewer samples or units where they were."""
    *batch, samples, units = shape
    return (*(2 for _ in batch), *((14, 20) if samples < units else (20, 13)))


for name, work in CUDA_WORKS.items():
    if issubclass(work, Eigenspectrum):
        SMALL[name] = {"shape": small_shape(work.shape)}
    elif issubclass(work, Eigenvalues):
        SMALL[name] = {"batch": 3, "size": 5}
    elif issubclass(work, AttackStep):
        SMALL[name] = {"batch": 3, "shape": (3, 8, 8)}


@pytest.fixture(autouse=True)
def vendor_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch stand in for the solver that only a GPU has."""
    monkeypatch.setattr(vendor, "eigvalsh", torch.linalg.eigvalsh)
    monkeypatch.setattr(vendor, "eigh", torch.linalg.eigh)


@pytest.fixture(autouse=True)
def other_attack(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the reference stand in for foolbox, which may not be installed."""

    def attack(model: nn.Module, step_count: int) -> reference.attacks.PGD:
        sizes = attacks.EPS, attacks.ALPHA
        return reference.attacks.PGD(model, *sizes, step_count, random_start=False)

    monkeypatch.setattr(attacks, "foolbox_attack", attack)


@pytest.fixture
def eager_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what torch.compile would take minutes for."""
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)


def small(work: type[Work], **members: object) -> type[Work]:
    """Make a work small, with the contenders that a GPU would have."""

    def __init__(self: Work, device: str = "cpu") -> None:
        work.__init__(self, device)
        self.has_graphs = True

    return type(work.__name__, (work,), {**members, "__init__": __init__, "quick_rounds": 2})


def measured(work: type[Work], **members: object) -> dict:
    members = {"quick_rounds": 2, "rounds": 2, **members}
    return measure.measure(small(work, **members), device="cpu")


@pytest.mark.parametrize(
    ("name", "times"),
    [("eigvalsh_256x32x32", 10), ("eigvalsh_16x128x128", 5), ("eigh_256x16x16", 4)],
)
def test_solvers_are_held_against_the_batched_one_of_the_vendor(name: str, times: float) -> None:
    targets = CUDA_WORKS[name].targets
    assert [target.bound for target in targets] == [times, times]
    assert all("CuPy" in target.quantity for target in targets)


def test_the_captured_loss_has_its_time() -> None:
    target, *_ = CUDA_WORKS["eigenspectrum_128x2000"].targets
    seconds = {spectrum.LOSS + IN_A_GRAPH: np.array([0.00029, 0.0003, 0.00031])}
    measured = target.measure(Comparison(seconds))
    assert measured.median == pytest.approx(0.3)
    assert target.reached(measured) != target.reached(replace(measured, median=0.31))


def test_a_rival_that_raises_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class VendorError(Exception):
        pass

    def raises(a: Tensor) -> Tensor:
        raise VendorError("no kernel image")

    monkeypatch.setattr(vendor, "eigvalsh", raises)
    work = small(CUDA_WORKS["eigvalsh_256x32x32"], batch=3, size=5)("cpu")
    monkeypatch.setattr(work, "device", SimpleNamespace(type="cuda"))
    [label] = [label for label in work.entries if "CuPy" in label and "graph" not in label]
    assert "no kernel image" in str(measure.check(work, label))


def assert_complete(work: type[Work], results: dict) -> None:
    """Every contender was checked and timed, captured ones too, and what it is compared with."""
    assert results["left_out"] == {}
    expected = set(work.contenders)
    expected |= {label + IN_A_GRAPH for label, entry in work.contenders.items() if entry.fits_graph}
    rows = {row["contender"]: row for row in results["rows"]}
    assert set(rows) == expected
    assert len(results["targets"]) == len(work.targets)
    has_copy = COPY in work.contenders
    for label, row in rows.items():
        assert row["milliseconds"]["median"] > 0
        assert row["graphed"] == label.endswith(IN_A_GRAPH)
        assert (row["percent_of_copy"] is not None) == (has_copy and not label.startswith(COPY))
        assert row["device"] == "cpu"
    own = [entry for entry in work.contenders.values() if entry.role == "selkern"]
    assert own
    # Beyond what one block holds torch's solver waits for the GPU, which no graph may.
    assert any(entry.fits_graph for entry in own) == (work.name not in WITHOUT_GRAPH)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.usefixtures("eager_compiler")
def test_works_that_are_not_streaming(name: str) -> None:
    assert_complete(CUDA_WORKS[name], measured(CUDA_WORKS[name], **SMALL[name]))


def test_these_are_all_works() -> None:
    others = [work for name, work in CUDA_WORKS.items() if name not in SMALL]
    assert all(hasattr(work, "operation") for work in others)
    combinations = 3 * 2 * 2
    assert len(others) == len(models.RESNET50_MAPS) * combinations
    assert set(CUDA_HEADLINES) <= set(CUDA_WORKS)


@pytest.mark.parametrize("work", streaming_works(((256, 56, 56),)), ids=lambda work: work.name)
@pytest.mark.usefixtures("eager_compiler")
def test_streaming_works(work: type[Work]) -> None:
    results = measured(work, shape=(8, 7, 7), batch=3)
    assert_complete(work, results)
    dtype = {row["dtype"] for row in results["rows"]}
    assert dtype == {str(work.dtype).removeprefix("torch.")}
    is_backward = "backward" in work.name
    x_bytes = 3 * 8 * 49 * work.dtype.itemsize
    tensors = 3 if is_backward else 2 if "relu" in work.name else 1
    assert results["bytes"] == tensors * x_bytes + 3 * 8 * 4


def test_streaming_inputs_have_the_layout() -> None:
    for work in streaming_works(((8, 7, 7),), batch=3):
        instance = work("cpu")
        for tensor in instance.inputs[0]:
            if tensor.ndim == 4:
                is_last = tensor.is_contiguous(memory_format=torch.channels_last)
                assert is_last == work.channels_last
                assert tensor.dtype == work.dtype
        assert len(instance.inputs) == instance.sets


def test_the_maps_are_those_of_resnet18() -> None:
    seen = []
    model = ResNet18(num_classes=7)
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(lambda m, x, y: seen.append(tuple(y.shape[1:])))
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 7)
    stages = [(64, 32, 32)] * 5 + [(128, 16, 16)] * 4 + [(256, 8, 8)] * 4 + [(512, 4, 4)] * 4
    assert seen == stages
    # He et al. count 11.7 million with 1,000 classes.
    weights = sum(p.numel() for p in ResNet18(num_classes=1000).parameters())
    assert weights == 11_689_512


class Wrong(Work):
    name = title = "wrong"
    rounds = 2

    @contender("right", "selkern", fits_graph=True)
    def right(self) -> Outcome:
        return Outcome(torch.ones(2))

    @contender("wrong", "selkern")
    def wrong(self) -> Outcome:
        return Outcome(torch.tensor([1.0, 2.0]))

    def expected(self, label: str) -> Outcome:
        return Outcome(torch.ones(2, dtype=torch.float64))


def test_a_wrong_value_stops_a_run_on_the_cpu() -> None:
    with pytest.raises(Disagreement, match="'wrong' differs from float64"):
        measure.measure(Wrong)


def test_a_wrong_value_is_noted_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def on_cuda(self: Wrong, device: str = "cpu") -> None:
        Work.__init__(self, "cuda")

    monkeypatch.setattr(Wrong, "__init__", on_cuda)
    monkeypatch.setattr("selkern._benchmarks.work.captured", lambda function, device: function)
    monkeypatch.setattr(measure, "nanoseconds_on", lambda device: lambda function: 1)
    results = measure.measure(Wrong, device="cuda")
    assert [row["contender"] for row in results["rows"]] == ["right", "right" + IN_A_GRAPH]
    assert "differs from float64" in results["failures"]["wrong"]


def test_ceilings() -> None:
    rates = ceilings("cpu", copied_megabytes=(1,), matrix_size=64)
    assert all(rate > 0 for rate in rates.values())


def test_time_that_is_up_is_said() -> None:
    results = measure.measure_all(["relu_stack"], seconds=-1)
    assert results["skipped"] == {"relu_stack": "no time was left"}
    assert "no time was left" in markdown(results)


class TestTables:
    @pytest.fixture
    def results(self, eager_compiler: None) -> dict:
        work = CUDA_WORKS["relu_with_mean_256x56x56_bfloat16_channels_last"]
        machine = {"device": "cuda", "gpu": {"name": "NVIDIA Example"}}
        return {
            "date": "2026-01-01",
            "machine": machine,
            "versions": {"torch": "2.11.0", "driver": "1.2"},
            "quick": False,
            "caches": "cold",
            "ceilings": {"copy of 1 MiB, GB/s": 4300.0},
            "clocks": {"at the end": {"SM clock, MHz": "1980"}},
            "commit": "abc",
            "works": [measured(work, shape=(8, 4, 4), batch=2)],
            "skipped": {"class_means_1000": "no time was left"},
            "failures": {"relu_stack": "RuntimeError: x"},
        }

    def test_of_no_run(self) -> None:
        assert gpu_table(None) == "Not measured: no GPU was reached.\n"

    def test_of_a_run(self, results: dict) -> None:
        table = gpu_table(json.loads(json.dumps(results)))
        rows = [line for line in table.splitlines() if line.startswith("| ")][2:]
        assert len(rows) == len(CUDA_HEADLINES)
        assert "NVIDIA Example" in table
        assert "not measured: no time was left" in table
        assert "not measured: RuntimeError: x" in table
        assert "no GPU was reached" not in table
        text = markdown(results)
        for part in (
            "4300",
            "SM clock 1980 MHz",
            "% of copy",
            "## Failures",
            "## Skipped",
            "commit abc",
        ):
            assert part in text
        print_results(results)

    def test_command(self, capsys: pytest.CaptureFixture[str], tmp_path: object) -> None:
        assert run.main(["--gpu-table", f"{tmp_path}/none.json"]) == 0
        assert "no GPU was reached" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--only", "nothing*"], "has no work nothing*"),
            (["--device", "cuda"], "needs a GPU"),
        ],
    )
    def test_refusals(
        self, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        if "cuda" in arguments and torch.cuda.is_available():
            pytest.skip("there is a GPU")
        with pytest.raises(SystemExit) as end:
            run.main(arguments)
        assert end.value.code == 2
        assert message in capsys.readouterr().err
