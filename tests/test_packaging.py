"""Installing, importing and describing the package."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import selkern
from selkern import _C
from selkern.__main__ import main
from selkern.demo.cli import DEMOS
from selkern.study.cli import STUDIES

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(selkern.__file__).parent
BINARY = Path(_C.__file__)
RUN_ON_THE_REFERENCE = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import selkern, selkern._library, torch
ours = [w for w in caught if "selkern" in str(w.message)]
assert len(ours) == 1 and ours[0].category is RuntimeWarning, caught
assert "selkern.reference" in str(ours[0].message)
assert selkern._library.COMPILED is False
info = selkern.build_info()
assert info["compiled"] is False and info["cpu_capability"] is None
x = torch.tensor([[1.0], [3.0]], requires_grad=True)
index = selkern.selectivity_index(x, torch.tensor([0, 1]), 2)
index.sum().backward()
torch.testing.assert_close(index, torch.tensor([2 / (4 + 1e-6)]))
assert x.grad.all()
model, x, y = torch.nn.Sequential(torch.nn.ReLU()), torch.rand(30, 12), torch.arange(30) % 2
for mode in ("exact", "frozen"):
    with selkern.SpectralRegularizer(model, beta=1.0, mode=mode) as regularizer:
        if mode == "frozen":
            regularizer.refresh([x])
        model(x)
        assert regularizer() > 0
for in_place in (False, True):
    model = torch.nn.Sequential(torch.nn.ReLU(in_place))
    with selkern.SelectivityRegularizer(model, 2, alpha=1.0) as regularizer:
        model(x)
        assert regularizer(y) < 0
"""
HELP_WITHOUT_EXTRAS = """
import sys
for package in "sklearn skimage matplotlib tqdm rich scipy kornia PIL h5py".split():
    sys.modules[package] = None
from selkern.__main__ import main
for command in sys.argv[1:]:
    try:
        main([*command.split(), "--help"])
    except SystemExit as end:
        assert end.code == 0, command
    else:
        raise AssertionError(command)
"""
NOT_SOURCES = (".git", ".venv", ".*_cache", "build", "dist", "*.egg-info", "__pycache__")
NOT_SOURCES += ("_C.*.so", "_cuda.*.so", "_C.json", ".benchmarks", ".hypothesis")
LEFT_BEHIND = "tests/.benchmarks/0001.json"


def run_python(
    *arguments: str | Path, folder: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run Python so that it imports from ``folder`` first."""
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def import_error(folder: Path, **environment: str) -> str:
    finished = run_python("-c", "import selkern", folder=folder, **environment)
    assert finished.returncode == 1, finished.stdout
    return finished.stderr[finished.stderr.rindex("ImportError: ") :]


def functions_with_avx(binary: Path) -> set[str]:
    """Return the names of the x86-64 functions with an instruction of AVX, AVX2 or AVX-512."""
    listing = subprocess.run(
        ["objdump", "--disassemble", "--demangle", binary],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    if "file format elf64-x86-64" not in listing:
        return set()
    functions, function = set(), ""
    for line in listing.splitlines():
        if line.endswith(">:"):
            function = line.partition("<")[2].removesuffix(">:")
        # The address, the bytes and the instruction; they begin with a VEX or an EVEX prefix, but
        # for those of a segment and of the size of addresses.
        elif re.match(r"[^\t]*\t(?:(?:64|65|67) )*(?:c4|c5|62) [^\t]*\t", line):
            functions.add(function)
    return functions


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with a copy of the package, without the compiled part."""
    ignore = shutil.ignore_patterns("_C.*.so", "_cuda.*.so", "_C.json", "__pycache__")
    shutil.copytree(PACKAGE, tmp_path / "selkern", ignore=ignore)
    return tmp_path


@pytest.fixture
def compiled_site(site: Path) -> Path:
    """A folder with a copy of the package and of the compiled part."""
    for path in (BINARY, BINARY.with_name("_C.json")):
        shutil.copy(path, site / "selkern")
    return site


class TestMissingBinary:
    def test_error_says_what_is_here_and_how_to_mend_it(self, site: Path) -> None:
        message = import_error(site)
        assert f"selkern._C, is missing from {site / 'selkern'}" in message
        assert f"torch {torch.__version__}" in message
        assert "pip install --no-build-isolation ." in message
        assert "SELKERN_ALLOW_REFERENCE=1" in message

    def test_error_names_a_binary_for_another_python(self, site: Path) -> None:
        built = {"selkern": "0.0.9", "torch": "2.12.0", "python": "3.99.1", "platform": "linux-vax"}
        built["cuda"] = "13.1"
        (site / "selkern" / "_C.cpython-399-vax-linux-gnu.so").touch()
        (site / "selkern" / "_C.json").write_text(json.dumps(built))
        message = import_error(site)
        assert "_C.cpython-399-vax-linux-gnu.so" in message
        assert "built for: selkern 0.0.9" in message
        assert "headers of 2.12.0), CUDA 13.1, Python 3.99.1, linux-vax" in message

    def test_error_in_the_source_folder_says_that_it_hides_the_installed_package(
        self, site: Path
    ) -> None:
        (site / "setup.py").touch()
        assert "this is the source folder" in import_error(site)

    def test_reference_runs_with_one_warning_where_it_is_allowed(self, site: Path) -> None:
        finished = run_python("-c", RUN_ON_THE_REFERENCE, folder=site, SELKERN_ALLOW_REFERENCE="1")
        assert finished.returncode == 0, finished.stderr

    @pytest.mark.parametrize("value", ["", "0", "true"])
    def test_reference_needs_the_value_1(self, site: Path, value: str) -> None:
        assert "is missing" in import_error(site, SELKERN_ALLOW_REFERENCE=value)


class TestMismatchedBinary:
    def test_undefined_symbol(self, compiled_site: Path) -> None:
        binary = compiled_site / "selkern" / BINARY.name
        binary.write_bytes(BINARY.read_bytes().replace(b"\0aoti_torch_", b"\0none_torch_"))
        message = import_error(compiled_site, SELKERN_ALLOW_REFERENCE="1")
        assert "cannot be loaded" in message
        assert "undefined symbol: none_torch_" in message
        assert f"built for: selkern {selkern.__version__}, torch >= 2.11" in message
        assert f"here: selkern {selkern.__version__}, torch {torch.__version__}" in message

    def test_not_a_binary(self, site: Path) -> None:
        suffix = sysconfig.get_config_var("EXT_SUFFIX")
        (site / "selkern" / f"_C{suffix}").write_text("not a shared object")
        assert "cannot be loaded" in import_error(site)

    def test_another_version_of_selkern(self, compiled_site: Path) -> None:
        (compiled_site / "selkern" / "_version.py").write_text('__version__ = "9.9.9"\n')
        message = import_error(compiled_site)
        assert f"compiled part is version {selkern.__version__}, its Python part 9.9.9" in message

    def test_torch_too_old(self, compiled_site: Path) -> None:
        (compiled_site / "torch.py").write_text('__version__ = "2.10.1+cpu"\n')
        message = import_error(compiled_site)
        assert "needs torch >= 2.11, got 2.10.1+cpu" in message
        assert "pip install 'torch>=2.11'" in message

    def test_no_torch(self, compiled_site: Path) -> None:
        (compiled_site / "torch.py").write_text("raise ImportError('nothing here')\n")
        message = import_error(compiled_site)
        assert "needs torch >= 2.11, which cannot be imported: nothing here" in message


class TestCpuCapability:
    @pytest.mark.parametrize("value", ["sse9", "AVX512", "avx512 ", "0"])
    def test_refused_value(self, value: str, tmp_path: Path) -> None:
        message = import_error(tmp_path, SELKERN_CPU_CAPABILITY=value)
        available = ", ".join(_C.supported_cpu_capabilities())
        assert f"SELKERN_CPU_CAPABILITY must be one of {available}" in message
        assert f"got {value!r}" in message

    @pytest.mark.parametrize("value", [*_C.supported_cpu_capabilities(), ""])
    def test_accepted_value(self, value: str, tmp_path: Path) -> None:
        code = "import selkern; print(selkern.build_info()['cpu_capability'])"
        finished = run_python("-c", code, folder=tmp_path, SELKERN_CPU_CAPABILITY=value)
        assert finished.stdout.strip() == (value or _C.supported_cpu_capabilities()[0])


class TestDescription:
    def test_build_info(self) -> None:
        info = selkern.build_info()
        assert info["version"] == selkern.__version__
        assert info["compiled"] is True
        assert info["torch_running"] == torch.__version__
        assert re.fullmatch(r"\d+\.\d+\.\d+", info["torch"])
        assert bool(info["cuda"]) == bool(info["cuda_architectures"])
        assert info["cuda"] or not info["cuda_loaded"]
        assert json.loads(BINARY.with_name("_C.json").read_text()).get("cuda") == info["cuda"]
        assert info["cpu_capability"] in info["cpu_capabilities"]
        assert set(_C.supported_cpu_capabilities()) <= set(info["cpu_capabilities"])
        assert "baseline" in _C.supported_cpu_capabilities()

    def test_one_version_everywhere(self) -> None:
        version = selkern.__version__
        assert importlib.metadata.version("selkern") == version
        changes = (ROOT / "CHANGELOG.md").read_text()
        released = re.findall(r"^## \[(\d.*)\]", changes, re.MULTILINE)[0]
        assert f"\nversion: {released}\n" in (ROOT / "CITATION.cff").read_text()
        # Between releases it is a development version of the next.
        assert version == released or ".dev" in version
        assert ("\n## [Unreleased]\n" in changes) == (".dev" in version)

    def test_binary_needs_only_the_stable_abi(self) -> None:
        if shutil.which("nm") is None:
            pytest.skip("nm is not installed")
        listing = subprocess.run(
            ["nm", "--dynamic", "--undefined-only", BINARY],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert "torch" in listing
        assert not re.findall(r"\b_Z\w*(?:2at|3c10|5torch)\w*", listing)

    def test_only_kernels_for_avx_use_it(self) -> None:
        """An inline function compiled for AVX may be the copy that everything else calls."""
        if shutil.which("objdump") is None:
            pytest.skip("objdump is not installed")
        functions = functions_with_avx(BINARY)
        kernels = {name for name in functions if re.search(r"\bavx(2|512)::", name)}
        if not kernels:
            pytest.skip("the binary is for another processor, or has no symbols")
        assert functions == kernels


class TestCommands:
    def test_info(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["info"]) == 0
        shown = capsys.readouterr().out
        for name, value in selkern.build_info().items():
            assert re.search(rf"^{name} ", shown, re.MULTILINE)
            assert not isinstance(value, str) or value in shown

    def test_module_runs_from_any_folder(self, tmp_path: Path) -> None:
        finished = run_python("-m", "selkern", "info", folder=tmp_path)
        assert finished.returncode == 0, finished.stderr
        assert torch.__version__ in finished.stdout

    @pytest.mark.parametrize(
        ("command", "module"),
        [
            ("demo", "selkern.demo.cli"),
            ("study", "selkern.study.cli"),
            ("bench", "selkern._benchmarks.run"),
        ],
    )
    def test_arguments_are_passed_on(
        self, command: str, module: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        received: list[str] = []
        monkeypatch.setattr("selkern.__main__.is_installed", lambda name: True)
        monkeypatch.setitem(sys.modules, module, SimpleNamespace(main=received.extend))
        assert main([command, "--alpha", "2", "-h"]) == 0
        assert received == ["--alpha", "2", "-h"]

    @pytest.mark.parametrize(
        ("command", "package"), [("demo", "rich"), ("study", "kornia"), ("bench", "rich")]
    )
    def test_missing_extra_is_one_line(
        self,
        command: str,
        package: str,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr("selkern.__main__.is_installed", lambda name: name != package)
        assert main([command]) == 1
        assert capsys.readouterr().err == (
            f"python -m selkern {command} needs {package}: run `pip install {package}`\n"
        )

    def test_help_needs_no_extra(self, tmp_path: Path) -> None:
        commands = ["study", *(f"study {name}" for name in STUDIES)]
        if importlib.util.find_spec("selkern._benchmarks") is not None:
            commands += ["bench", "demo", *(f"demo {name}" for name in DEMOS)]
        finished = run_python("-c", HELP_WITHOUT_EXTRAS, *commands, folder=tmp_path)
        assert finished.returncode == 0, finished.stderr
        for command in commands:
            assert f"usage: python -m selkern {command} " in finished.stdout


def build_without_torch(kind: str, source: Path) -> subprocess.CompletedProcess[str]:
    """Call the build backend where torch cannot be imported."""
    (source / "without_torch.py").write_text(
        "import sys; sys.modules['torch'] = None\n"
        "from setuptools import build_meta\n"
        f"build_meta.build_{kind}('dist')\n"
    )
    return run_python("without_torch.py", folder=source)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source folder, in which a hidden folder lies that is no source."""
    folder = tmp_path_factory.mktemp("source") / "selkern"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*NOT_SOURCES))
    (folder / LEFT_BEHIND).parent.mkdir()
    (folder / LEFT_BEHIND).touch()
    return folder


@pytest.fixture(scope="module")
def sdist(source: Path) -> Path:
    """A source distribution, made without torch."""
    finished = build_without_torch("sdist", source)
    assert finished.returncode == 0, finished.stderr
    return source / "dist" / f"selkern-{selkern.__version__}.tar.gz"


@pytest.mark.slow
class TestSourceDistribution:
    def test_holds_every_source(self, source: Path, sdist: Path) -> None:
        with tarfile.open(sdist) as archive:
            held = {name.partition("/")[2] for name in archive.getnames()}
        for folder in (
            "csrc",
            "selkern",
            "benchmarks",
            "docs",
            "examples",
            "tests",
            "tools",
            ".ci",
        ):
            for path in (source / folder).rglob("*.*"):
                name = str(path.relative_to(source))
                assert name in held or path.suffix == ".pyc" or "/." in name
        assert LEFT_BEHIND not in held
        assert {"Makefile", "README.md", "LICENSE", ".ci/run", ".clang-format"} <= held

    def test_installs_and_runs(self, source: Path, sdist: Path, tmp_path: Path) -> None:
        pip = ["-m", "pip", "install", "--no-build-isolation", "--no-deps", "--no-index"]
        finished = run_python(*pip, "--target", tmp_path, sdist, folder=source)
        assert finished.returncode == 0, finished.stdout + finished.stderr
        code = "import selkern, selkern._benchmarks as b; print(selkern.__file__, b.__file__)"
        finished = run_python("-c", code, folder=tmp_path)
        assert finished.stdout.split() == [
            str(tmp_path / "selkern" / "__init__.py"),
            str(tmp_path / "selkern" / "_benchmarks" / "__init__.py"),
        ], finished.stderr
        assert (tmp_path / "selkern" / "py.typed").exists()
        for folder, installed in (("selkern", "selkern"), ("benchmarks", "selkern/_benchmarks")):
            modules = {
                path.relative_to(source / folder) for path in (source / folder).rglob("*.py")
            }
            assert all((tmp_path / installed / module).exists() for module in modules)
        assert not (tmp_path / "selkern" / "_benchmarks" / "results").exists()

    def test_building_without_torch_names_the_cure_in_one_line(self, source: Path) -> None:
        finished = build_without_torch("wheel", source)
        assert finished.returncode == 1
        assert "Traceback" not in finished.stderr
        [line] = [line for line in finished.stderr.splitlines() if line.startswith("selkern: ")]
        assert "pip install torch setuptools pybind11 ninja numpy" in line
        assert "pip install --no-build-isolation ." in line
