"""Whether there is a CUDA part: what the build decides, and what the import does with it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cuda_build
import pytest
import torch
from cuda_build import Decision, decide

from selkern import _library

ROOT = Path(__file__).resolve().parents[1]
ALL_OF_13 = "75 80 86 87 88 89 90 100 110 103 120 121"
NVCC = """#!/bin/sh
case "$*" in
  *--version*) echo 'Cuda compilation tools, release {version}, V{version}.88' ;;
  *--dryrun*) echo '#$ _HERE_=/elsewhere'; echo '#$ TOP={top}'; echo '#$ PATH=/bin' ;;
  *--list-gpu-arch*) printf 'compute_%s\\n' {architectures} ;;
esac
"""


def install_nvcc(
    home: Path, version: str = "13.0", architectures: str = ALL_OF_13, top: Path | None = None
) -> dict[str, str]:
    """Write what answers like nvcc, and return the environment that finds it."""
    nvcc = home / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    # As nvcc prints it, unless the script is one that calls the nvcc of another folder.
    top = top or home / "bin" / ".."
    nvcc.write_text(NVCC.format(version=version, architectures=architectures, top=top))
    nvcc.chmod(0o755)
    return {"PATH": f"{nvcc.parent}:{os.defpath}"}


def fake_torch(
    cuda: str | None = "13.0", hip: str | None = None, gpus: tuple[tuple[int, int], ...] = ()
) -> Any:
    return SimpleNamespace(
        __version__="2.11.0+fake",
        version=SimpleNamespace(cuda=cuda, hip=hip),
        cuda=SimpleNamespace(
            is_available=lambda: bool(gpus),
            device_count=lambda: len(gpus),
            get_device_capability=lambda device: gpus[device],
        ),
    )


@pytest.fixture(autouse=True)
def _no_usual_toolkit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cuda_build, "USUAL_HOME", tmp_path / "usual" / "cuda")


def architectures(decision: Decision) -> str:
    assert decision.obstacle is None
    assert decision.build is not None
    return decision.build.architecture_list


def obstacle(decision: Decision) -> str:
    assert decision.obstacle is not None
    assert decision.build is None
    return str(decision.obstacle)


def reason(decision: Decision) -> str:
    assert decision.obstacle is None
    assert decision.build is None
    [sentence] = decision.reasons
    return sentence


class TestWhetherToBuild:
    def test_torch_and_nvcc_of_one_version(self, tmp_path: Path) -> None:
        decision = decide(fake_torch(), install_nvcc(tmp_path))
        assert decision.build is not None
        assert decision.build.version == "13.0"
        assert decision.build.toolkit.home == tmp_path
        assert not any("warning" in sentence for sentence in decision.reasons)

    def test_torch_learns_of_the_decision(self, tmp_path: Path) -> None:
        decision = decide(fake_torch(gpus=((9, 0),)), install_nvcc(tmp_path))
        assert decision.environment() == {
            "CUDA_HOME": str(tmp_path),
            "TORCH_CUDA_ARCH_LIST": "9.0+PTX",
        }
        assert decide(fake_torch(cuda=None), {}).environment() == {}

    @pytest.mark.parametrize(
        ("here", "why"),
        [
            (fake_torch(cuda=None), "torch 2.11.0+fake is built without CUDA"),
            (fake_torch(cuda=None, hip="7.1"), "torch 2.11.0+fake is built for ROCm 7.1"),
        ],
    )
    def test_torch_without_cuda(self, here: Any, why: str, tmp_path: Path) -> None:
        environment = install_nvcc(tmp_path)
        assert reason(decide(here, environment)).startswith(f"CPU only, because {why}")
        forced = decide(here, {**environment, "SELKERN_FORCE_CUDA": "1"})
        assert obstacle(forced).startswith(f"SELKERN_FORCE_CUDA=1, but {why}")

    def test_no_nvcc(self, tmp_path: Path) -> None:
        environment = {"PATH": str(tmp_path)}
        assert "no nvcc was found in PATH" in reason(decide(fake_torch(), environment))
        environment["CUDA_HOME"] = str(tmp_path / "cuda")
        assert f"no nvcc was found in {tmp_path}" in reason(decide(fake_torch(), environment))
        environment["SELKERN_FORCE_CUDA"] = "1"
        message = obstacle(decide(fake_torch(), environment))
        assert "SELKERN_FORCE_CUDA=1, but no nvcc was found" in message
        assert "install a toolkit of CUDA 13 and set CUDA_HOME" in message

    def test_skipped(self, tmp_path: Path) -> None:
        environment = {**install_nvcc(tmp_path, "12.8"), "SELKERN_SKIP_CUDA": "1"}
        assert "SELKERN_SKIP_CUDA=1" in reason(decide(fake_torch(), environment))

    def test_forced_and_skipped(self) -> None:
        environment = {"SELKERN_FORCE_CUDA": "1", "SELKERN_SKIP_CUDA": "1"}
        assert "exclude each other" in obstacle(decide(fake_torch(), environment))

    @pytest.mark.parametrize("name", ["SELKERN_FORCE_CUDA", "SELKERN_SKIP_CUDA"])
    def test_refused_value(self, name: str) -> None:
        message = obstacle(decide(fake_torch(), {name: "yes"}))
        assert f"{name} must be 1, 0 or unset, got 'yes'" in message

    def test_sanitizers_leave_it_out(self, tmp_path: Path) -> None:
        environment = install_nvcc(tmp_path)
        assert "SELKERN_SANITIZE=address" in reason(decide(fake_torch(), environment, "address"))
        environment["SELKERN_FORCE_CUDA"] = "1"
        assert "SELKERN_SANITIZE=address" in obstacle(decide(fake_torch(), environment, "address"))

    def test_another_major_version_stops(self, tmp_path: Path) -> None:
        message = obstacle(decide(fake_torch(), install_nvcc(tmp_path, "12.8")))
        assert "nvcc is of CUDA 12.8" in message
        assert "of CUDA 13.0" in message
        assert "SELKERN_SKIP_CUDA=1" in message

    def test_another_minor_version_warns(self, tmp_path: Path) -> None:
        decision = decide(fake_torch(), install_nvcc(tmp_path, "13.2"))
        assert decision.build is not None
        [warning] = [sentence for sentence in decision.reasons if "warning" in sentence]
        assert "13.2" in warning
        assert "13.0" in warning


class TestToolkit:
    def test_script_that_calls_another_nvcc(self, tmp_path: Path) -> None:
        install_nvcc(tmp_path / "toolkit")
        environment = install_nvcc(tmp_path / "scripts", top=tmp_path / "toolkit" / "bin" / "..")
        decision = decide(fake_torch(), environment)
        assert decision.build is not None
        assert decision.build.toolkit.home == tmp_path / "toolkit"

    def test_dry_run(self) -> None:
        printed = "#$ _SPACE_= \n#$ TOP=/opt/a toolkit/bin/..\n#$ TOPMOST=/x\n"
        assert cuda_build.toolkit_home(printed) == Path("/opt/a toolkit")
        assert cuda_build.toolkit_home("nvcc fatal   : Unknown option") is None

    @pytest.mark.parametrize("name", ["CUDA_HOME", "CUDA_PATH"])
    def test_named_by_the_environment(self, name: str, tmp_path: Path) -> None:
        environment = install_nvcc(tmp_path / "on-path", "13.1")
        install_nvcc(tmp_path / "named", "13.0")
        environment[name] = str(tmp_path / "named")
        assert cuda_build.choose_toolkit((13, 0), environment).home == tmp_path / "named"

    @pytest.mark.parametrize("folder", ["cuda", "cuda-13.0"])
    def test_usual_folder_where_the_one_on_path_is_of_another_major(
        self, folder: str, tmp_path: Path
    ) -> None:
        environment = install_nvcc(tmp_path / "on-path", "12.8")
        install_nvcc(tmp_path / "usual" / folder, "13.0")
        assert cuda_build.choose_toolkit((13, 0), environment).home == tmp_path / "usual" / folder


class TestArchitectures:
    @pytest.mark.parametrize(
        ("known", "expected"),
        [
            (ALL_OF_13, "8.0;8.6;8.9;9.0;10.0;12.0+PTX"),
            ("50 52 80 86 87 89 90", "8.0;8.6;8.9;9.0+PTX"),
        ],
    )
    def test_no_gpu(self, known: str, expected: str, tmp_path: Path) -> None:
        environment = install_nvcc(tmp_path, architectures=known)
        assert architectures(decide(fake_torch(), environment)) == expected

    @pytest.mark.parametrize(
        ("gpus", "expected"),
        [
            (((9, 0),), "9.0+PTX"),
            (((12, 0), (8, 6), (8, 6)), "8.6;12.0+PTX"),
            (((7, 5), (8, 0)), "8.0+PTX"),
            (((13, 0),), "12.1+PTX"),
        ],
    )
    def test_visible_gpus(
        self, gpus: tuple[tuple[int, int], ...], expected: str, tmp_path: Path
    ) -> None:
        environment = install_nvcc(tmp_path)
        assert architectures(decide(fake_torch(gpus=gpus), environment)) == expected

    def test_gpu_that_is_too_old(self, tmp_path: Path) -> None:
        environment = install_nvcc(tmp_path)
        sentence = reason(decide(fake_torch(gpus=((7, 5),)), environment))
        assert "the GPU has compute capability 7.5" in sentence
        assert "need 8.0" in sentence

    @pytest.mark.parametrize(
        ("asked", "expected"),
        [("9.0", "9.0"), ("8.0;9.0+PTX", "8.0;9.0+PTX"), (" 8.6  Hopper; ", "8.6;Hopper")],
    )
    def test_asked_for(self, asked: str, expected: str, tmp_path: Path) -> None:
        environment = {**install_nvcc(tmp_path), "TORCH_CUDA_ARCH_LIST": asked}
        assert architectures(decide(fake_torch(gpus=((8, 0),)), environment)) == expected

    @pytest.mark.parametrize("asked", ["", " ", "native"])
    def test_not_asked_for(self, asked: str, tmp_path: Path) -> None:
        environment = {**install_nvcc(tmp_path), "TORCH_CUDA_ARCH_LIST": asked}
        assert architectures(decide(fake_torch(gpus=((8, 9),)), environment)) == "8.9+PTX"


CONTRADICTION = {"SELKERN_FORCE_CUDA": "1", "SELKERN_SKIP_CUDA": "1"}


def run_setup(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "setup.py", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
class TestSetup:
    def test_build_stops_at_an_obstacle_in_one_line(self, tmp_path: Path) -> None:
        finished = run_setup("build_ext", f"--build-temp={tmp_path}", **CONTRADICTION)
        assert finished.returncode == 1
        assert "Traceback" not in finished.stderr
        assert "selkern: SELKERN_FORCE_CUDA=1 and SELKERN_SKIP_CUDA=1 exclude" in finished.stderr

    def test_other_steps_go_on(self, tmp_path: Path) -> None:
        finished = run_setup("egg_info", f"--egg-base={tmp_path}", **CONTRADICTION)
        assert finished.returncode == 0, finished.stderr
        assert (tmp_path / "selkern.egg-info").exists()


class TestImport:
    @pytest.fixture(autouse=True)
    def package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A folder with a CUDA part that is no shared object, and a torch with CUDA."""
        monkeypatch.setattr(_library, "_PACKAGE", tmp_path)
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        binary = tmp_path / f"_cuda{sysconfig.get_config_var('EXT_SUFFIX')}"
        binary.write_text("not a shared object")
        return tmp_path

    @staticmethod
    def load(built: str | None) -> bool:
        extension: Any = SimpleNamespace(build_info=lambda: {"cuda": built})
        return _library._load_cuda(extension, "2.11.0+fake")

    def test_torch_without_cuda_does_without(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.version, "cuda", None)
        assert self.load("13.0") is False

    def test_one_that_an_earlier_build_left_is_not_loaded(self) -> None:
        assert self.load(None) is False

    def test_missing(self, package: Path) -> None:
        for path in package.iterdir():
            path.unlink()
        assert self.load("13.0") is False

    def test_another_major_version(self) -> None:
        with pytest.raises(ImportError, match=r"built for CUDA 12\.8, .* has CUDA 13\.0"):
            self.load("12.8")

    def test_broken(self) -> None:
        with pytest.raises(ImportError, match="CUDA part cannot be loaded") as refusal:
            self.load("13.1")
        assert "torch 2.11.0+fake with CUDA 13.0" in str(refusal.value)
        assert "SELKERN_SKIP_CUDA=1" in str(refusal.value)


@pytest.mark.skipif(_library._cuda_loaded, reason="the CUDA part is loaded")
def test_cuda_tensor_without_the_cuda_part() -> None:
    operators = [
        name.removeprefix("selkern::")
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("selkern::")
    ]
    assert "spatial_mean" in operators
    for name in operators:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"selkern::{name}", "CUDA")
    operator = torch.ops.selkern.spatial_mean.default
    # What torch does for a tensor that says it is on the GPU, which needs none.
    with pytest.raises(NotImplementedError, match="SELKERN_FORCE_CUDA=1 pip install"):
        operator._op_dk(torch._C.DispatchKey.CUDA, torch.ones(2, 3, 4))
