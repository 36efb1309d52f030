"""What the pages under ``docs`` and the README say: it runs, and no public name is missing."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

import selkern
from selkern import data
from selkern.__main__ import main
from selkern._command import CLOSED_PIPE, INTERRUPTED
from selkern.demo.cli import DEMOS
from selkern.study.cli import STUDIES

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
MODULES = (
    selkern,
    selkern.linalg,
    selkern.analysis,
    selkern.attacks,
    data,
    selkern.reference,
)


class Block(NamedTuple):
    """A block of code on a page, whose first line is so far down."""

    language: str
    first_line: int
    text: str


def blocks(page: Path) -> list[Block]:
    lines = page.read_text(encoding="utf-8").splitlines()
    fences = [number for number, line in enumerate(lines) if line.startswith("```")]
    return [
        Block(lines[start][3:], start + 1, "\n".join(lines[start + 1 : end]))
        for start, end in zip(fences[::2], fences[1::2], strict=True)
    ]


def run_python(page: Path, names: dict[str, Any]) -> None:
    """Run the Python of a page in one namespace, with the page's own lines in tracebacks."""
    for block in blocks(page):
        if block.language == "python":
            source = "\n" * block.first_line + block.text
            exec(compile(source, page.name, "exec"), names)


def commands(page: Path) -> list[str]:
    """Every command of ours in a page's shell blocks."""
    lines = [
        line.partition("  #")[0].strip()
        for block in blocks(page)
        if not block.language
        for line in block.text.splitlines()
    ]
    return [line for line in lines if line.startswith("python -m selkern")]


@pytest.fixture(autouse=True)
def _one_thread(restore_threads: None) -> None:
    """The networks are too small to be worth a second one, which others may be using."""
    torch.set_num_threads(1)


def test_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("kornia")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    run_python(DOCS / "tutorial.md", names)
    assert set(names["models"]) == {-2, 0, 2}
    assert os.listdir(tmp_path) == []


def make_network() -> nn.Module:
    maps = [nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU()]
    return nn.Sequential(*maps, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))


def test_the_readme_runs() -> None:
    labels = torch.arange(40) % 10
    relu_outputs = [torch.rand(40, units, 2, 2) for units in (3, 5)]
    names: dict[str, Any] = {
        "MyNetwork": make_network,
        "make_model": make_network,
        "loader": [(torch.rand(40, 3, 6, 6), labels)],
        "relu_outputs": relu_outputs,
        "alpha": -2.0,
    }
    run_python(ROOT / "README.md", names)
    # The definition that it shows.
    expected = 2.0 * selkern.mean_selectivity(relu_outputs, labels, 10)
    torch.testing.assert_close(names["penalty"], expected)


RESULTS = ROOT / "benchmarks" / "results"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_what_is_there(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, heading = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE) if heading else []
        assert not heading or heading in {title.lower().replace(" ", "-") for title in headings}


class TestReadmeTables:
    @pytest.fixture(scope="class")
    def page(self) -> str:
        return (ROOT / "README.md").read_text(encoding="utf-8")

    @pytest.fixture(scope="class")
    def kept(self) -> dict[str, dict[str, Any] | None]:
        """The kept runs of the CPU and of the GPU."""
        runs: dict[str, dict[str, Any] | None] = {"cpu": None, "cuda": None}
        for path in RESULTS.glob("*/benchmark.json"):
            results = json.loads(path.read_text(encoding="utf-8"))
            runs[results["machine"]["device"]] = results
        return runs

    def test_are_those_of_the_kept_runs(self, page: str, kept: dict[str, Any]) -> None:
        report = pytest.importorskip("selkern._benchmarks.report")
        gpu = pytest.importorskip("selkern._benchmarks.gpu_table")
        assert report.readme_table(kept["cpu"]) in page
        assert gpu.gpu_table(kept["cuda"]) in page


COMMANDS = sorted({command for page in PAGES for command in commands(page)})


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_that_are_shown_can_be_given(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("kornia" if " study" in command else "selkern._benchmarks")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    arguments = shlex.split(command)[3:]
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    options = [argument for argument in arguments if argument.startswith("--")]
    assert all(re.search(rf"{option}\b", shown) for option in options)


@pytest.fixture(scope="module")
def page() -> str:
    return (DOCS / "commands.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def entries() -> list[str]:
    """What the pages on modules take from the docstrings."""
    text = "\n".join(page.read_text("utf-8") for page in sorted((DOCS / "api").glob("*.md")))
    return re.findall(r"^\.\. auto\w+:: ([\w.]+)$", text, flags=re.MULTILINE)


class TestCommandsPage:
    def test_has_every_command(self, page: str) -> None:
        names = ["info", "bench", *(f"demo {name}" for name in DEMOS)]
        names += [f"study {name}" for name in STUDIES]
        shown = re.findall(r"^\| `python -m selkern ([^`]*)`", page, flags=re.MULTILINE)
        assert sorted(shown) == sorted(names)

    def test_has_every_exit_code(self, page: str) -> None:
        codes = re.findall(r"^\| (\d+) \|", page, flags=re.MULTILINE)
        assert list(map(int, codes)) == [0, 1, 2, INTERRUPTED, CLOSED_PIPE]

    def test_has_every_environment_variable(self, page: str) -> None:
        sources = [*ROOT.glob("selkern/**/*.py"), *ROOT.glob("csrc/**/*.cpp")]
        pattern = r"(?:environ(?:\.get)?[\[(]|getenv\()\"(\w+)\""
        read = {name for path in sources for name in re.findall(pattern, path.read_text("utf-8"))}
        assert {"SELKERN_CHECK", "SELKERN_CPU_CAPABILITY"} <= read
        assert all(f"`{name}" in page for name in read)


class TestReferencePages:
    def test_have_every_public_name(self, entries: list[str]) -> None:
        public = {f"{module.__name__}.{name}" for module in MODULES for name in module.__all__} - {
            "selkern"
        }
        modules = {module.__name__ for module in MODULES} - {"selkern"}
        assert public | modules <= set(entries)

    def test_have_every_entry_once_and_it_exists(self, entries: list[str]) -> None:
        assert len(set(entries)) == len(entries)
        for entry in entries:
            owner: Any = selkern
            for name in entry.split(".")[1:]:
                owner = getattr(owner, name)

    def test_are_all_in_the_table_of_contents(self) -> None:
        index = (DOCS / "index.md").read_text(encoding="utf-8")
        for page in (DOCS / "api").glob("*.md"):
            assert f"\napi/{page.stem}\n" in index
            assert f"(api/{page.name})" in index


@pytest.mark.parametrize("study", ["selectivity", "spectrum"])
def test_all_findings_are_shown_as_they_are_kept(study: str) -> None:
    kept = json.loads((RESULTS / "studies" / study / "summary.json").read_text(encoding="utf-8"))
    shown = (DOCS / "results.md").read_text(encoding="utf-8")
    rows = [
        "| {claim} | {measure} | {value} | **{verdict}** |".format(**finding)
        for finding in kept["findings"]
    ]
    assert len(rows) >= 15
    assert "\n".join(rows) in shown
