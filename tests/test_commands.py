"""What all commands of ``python -m selkern`` share, also through a terminal and through pipes."""

from __future__ import annotations

import fcntl
import importlib
import json
import math
import os
import re
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from gpu import NEEDS_GPU

from selkern import __main__ as program
from selkern import build_info
from selkern.__main__ import COMMANDS, main
from selkern._command import CLOSED_PIPE, INTERRUPTED, CommandFailed, device, print_json, progress
from selkern.demo.cli import DEMOS
from selkern.study.cli import STUDIES

OPTIONS = ("--help", "--json", "--quiet", "--device", "--seed")
DEMO_COMMANDS = [f"demo {name}" for name in DEMOS]
STUDY_COMMANDS = [f"study {name}" for name in STUDIES]
ALL_COMMANDS = ["info", "bench", *DEMO_COMMANDS, *STUDY_COMMANDS]
REQUIRED = {"study recording": ["--data", "recording.npy"]}
PACKAGES = {
    "demo": ("selkern._benchmarks", "sklearn", "skimage", "matplotlib", "tqdm", "rich"),
    "study": ("scipy", "sklearn", "matplotlib", "tqdm", "kornia", "PIL"),
    "bench": ("selkern._benchmarks", "pytest_benchmark", "rich"),
    "info": (),
}
SMALL_DEMO = """
import fcntl, sys, termios

if sys.stdin.isatty():
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from selkern.__main__ import main
from selkern.demo.data import Digits, Images
from selkern.demo.selectivity import cli

load_digits = cli.load_digits


def few(images):
    return Images(images.images[:256], images.labels[:256])


def load_few():
    digits = load_digits()
    return Digits(few(digits.train), few(digits.test))


cli.load_digits = load_few
cli.ALPHAS = (2.0,)
given = ["--quick", "--no-benchmark", "--threads", "1", *sys.argv[1:]]
sys.exit(main(["demo", "selectivity", *given]))
"""
"""The command with few images and one alpha, in the terminal that it was given."""


def need_packages_of(command: str) -> None:
    for package in PACKAGES[command.split()[0]]:
        pytest.importorskip(package)


@pytest.fixture(params=ALL_COMMANDS)
def command(request: pytest.FixtureRequest) -> list[str]:
    need_packages_of(request.param)
    return request.param.split()


class TestEveryCommand:
    def test_has_the_options_of_all(
        self, command: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as end:
            main([*command, "--help"])
        assert end.value.code == 0
        shown = capsys.readouterr().out
        assert all(re.search(rf"{option}\b", shown) for option in OPTIONS)
        assert "--no-progress" not in shown

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--unknown"], "--unknown"),
            (["--qui"], "--qui"),
            (["--seed", "-1"], "must be a whole number from 0 on, got '-1'"),
            (["--device", "tpu"], "must be cpu, cuda or cuda:INDEX, got 'tpu'"),
            (["--device", "cuda:99"], "cuda:99 needs a GPU"),
        ],
    )
    def test_refuses_bad_arguments_in_one_line(
        self,
        command: list[str],
        arguments: list[str],
        message: str,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        with pytest.raises(SystemExit) as end:
            main([*command, *REQUIRED.get(" ".join(command), []), *arguments])
        assert end.value.code == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err.count("\n") == 1
        assert shown.err.startswith(f"python -m selkern {' '.join(command)}: ")
        assert message in shown.err


@pytest.mark.parametrize("command", ["bench", *DEMO_COMMANDS])
def test_a_folder_that_cannot_be_is_refused_in_one_line(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    need_packages_of(command)
    (tmp_path / "file").touch()
    for folder in ("file", "file/folder"):
        with pytest.raises(SystemExit) as end:
            main([*command.split(), "--output", str(tmp_path / folder)])
        assert end.value.code == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert f"--output: {tmp_path / 'file'} is a file, not a folder" in error


@pytest.mark.parametrize(
    ("study", "defaults"),
    [
        ("selectivity", ["8 in small, 20 in paper", "30 in small, 200 or 90 in paper", "-5 -2 -1"]),
        ("spectrum", ["8 in small, 5 in paper", "300 in small, 100 or 50 in paper"]),
    ],
)
def test_help_tells_what_the_presets_have(
    study: str, defaults: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["study", study, "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for default in defaults:
        assert f"(default: the preset's: {default}" in shown


class TestChoice:
    def test_without_arguments_the_commands_are_listed(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([]) == 0
        shown = capsys.readouterr()
        assert set(COMMANDS) == {"info", "demo", "study", "bench"}
        for name, (summary, _) in COMMANDS.items():
            assert re.search(rf"^ +{name} ", shown.out, re.MULTILINE)
            assert summary in " ".join(shown.out.split())
        assert shown.err == ""

    @pytest.mark.parametrize("command", ["demo", "study"])
    def test_help_lists_what_there_is(
        self, command: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        need_packages_of(command)
        with pytest.raises(SystemExit) as end:
            main([command, "--help"])
        assert end.value.code == 0
        shown = " ".join(capsys.readouterr().out.split())
        for name, summary in {"demo": DEMOS, "study": STUDIES}[command].items():
            assert f"{name} {summary}" in shown

    @pytest.mark.parametrize("arguments", [["train"], ["--train"], ["study", "nothing"]])
    def test_unknown_names_are_refused_in_one_line(
        self, arguments: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        need_packages_of(arguments[0] if arguments[0] in PACKAGES else "info")
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert arguments[-1] in error

    def test_a_study_needs_no_benchmarks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        stub = type("Module", (), {"main": staticmethod(lambda arguments: 7)})
        missing = "selkern._benchmarks"
        monkeypatch.setattr(program, "is_installed", lambda name: name != missing)
        monkeypatch.setattr(importlib, "import_module", lambda name: stub)
        assert main(["study"]) == 7
        assert main(["demo"]) == 1


def ending_with(error: BaseException) -> Callable[[list[str]], int]:
    def run(arguments: list[str]) -> int:
        raise error

    return run


class TestEnd:
    @pytest.mark.parametrize(
        ("error", "code", "line"),
        [
            (KeyboardInterrupt(), INTERRUPTED, "interrupted"),
            (CommandFailed("the loss\n is 9"), 1, "the loss is 9"),
            (ImportError("needs scipy: run `pip`"), 1, "needs scipy: run `pip`"),
            (OSError(28, "No space left"), 1, "[Errno 28] No space left"),
            (torch.OutOfMemoryError("out of memory"), 1, "out of memory"),
            (NotImplementedError("no CUDA part"), 1, "no CUDA part"),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_is_one_line(
        self,
        error: BaseException,
        code: int,
        line: str,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setitem(COMMANDS, "demo", ("", ending_with(error)))
        assert main(["demo"]) == code
        assert capsys.readouterr().err == f"python -m selkern: {line}\n"

    def test_an_interrupted_study_says_how_it_goes_on(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setitem(COMMANDS, "study", ("", ending_with(KeyboardInterrupt())))
        assert main(["study", "spectrum"]) == INTERRUPTED == 130
        assert capsys.readouterr().err == (
            "python -m selkern: interrupted: run the same command again to go on\n"
        )

    def test_a_mistake_of_ours_keeps_its_traceback(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(COMMANDS, "demo", ("", ending_with(ZeroDivisionError())))
        with pytest.raises(ZeroDivisionError):
            main(["demo"])


class TestInfo:
    def test_json_has_what_the_table_has(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["info"]) == 0
        table = capsys.readouterr().out
        assert main(["info", "--json", "--quiet"]) == 0
        shown = capsys.readouterr()
        known = json.loads(shown.out)
        assert shown.err == ""
        assert [line.split()[0] for line in table.splitlines()] == list(known)
        assert known.items() >= build_info().items()
        assert known["device"] == "cpu"
        assert known["threads"] == torch.get_num_threads()

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
    def test_tells_about_the_gpu(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["info", "--json", "--device", "cuda"]) == 0
        assert json.loads(capsys.readouterr().out)["gpu"] == torch.cuda.get_device_name()


class TestBench:
    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        need_packages_of("bench")

    def run(self, folder: Path, *arguments: str) -> int:
        given = ["--suite", "interleaved", "--quick", "--only", "eigvalsh_256x32x32"]
        return main(["bench", *given, "--output", str(folder), *arguments])

    def test_prints_json_instead(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], restore_threads: None
    ) -> None:
        assert self.run(tmp_path, "--json", "--quiet") == 0
        shown = capsys.readouterr()
        assert shown.err == ""
        results = json.loads(shown.out)
        assert results == json.loads((tmp_path / "benchmark.json").read_text())
        assert [work["name"] for work in results["works"]] == ["eigvalsh_256x32x32"]
        assert main(["bench", "--json", "--table", str(tmp_path / "benchmark.json")]) == 0
        assert json.loads(capsys.readouterr().out) == results

    def test_the_seed_is_that_of_the_inputs(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from selkern._benchmarks import run
        from selkern._benchmarks.works import inputs

        drawn: list[float] = []

        def draw(*arguments: object, **options: object) -> dict:
            drawn.append(float(inputs.normal(1, source=inputs.generator())))
            return {"failures": {}}

        monkeypatch.setattr(run, "measure_all", draw)
        for seed in ("0", "7", "7"):
            assert self.run(tmp_path, "--json", "--seed", seed) == 0
        assert drawn[0] != drawn[1] == drawn[2]
        assert inputs.seed() == 0

    def test_what_is_no_kept_run_is_refused_in_one_line(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for content in ("", "[1]", '{"works": 1}'):
            (tmp_path / "run.json").write_text(content)
            with pytest.raises(SystemExit) as end:
                main(["bench", "--table", str(tmp_path / "run.json")])
            assert end.value.code == 2
            error = capsys.readouterr().err
            assert error.count("\n") == 1
            assert "run.json must be a benchmark.json" in error


def test_json_has_null_for_what_is_not_finite(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": [1.5, math.nan, -math.inf], "b": (True, None, "NaN")})
    shown = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert shown == {"a": [1.5, None, None], "b": [True, None, "NaN"]}


class TestProgress:
    def test_quiet_is_silent(self, capsys: pytest.CaptureFixture[str]) -> None:
        with progress("training", 3, quiet=True) as after_step:
            after_step(loss=1.0)
        assert capsys.readouterr() == ("", "")

    def test_is_a_line_where_there_is_no_terminal(self, capsys: pytest.CaptureFixture[str]) -> None:
        pytest.importorskip("tqdm")
        with progress("training", 3, quiet=False) as after_step:
            after_step(loss=1.0)
            after_step(steps=2)
        assert capsys.readouterr() == ("", "training: 3 steps\n")


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Both ends of a terminal of 120 columns: the user's, and the program's."""
    users, programs = os.openpty()
    fcntl.ioctl(programs, termios.TIOCSWINSZ, struct.pack("4H", 40, 120, 0, 0))
    yield users, programs
    os.close(users)


def read_until(end: int, wanted: bytes | None) -> bytes:
    """What a terminal shows until it shows something, or until its program ends."""
    shown = b""
    while wanted is None or wanted not in shown:
        assert select.select([end], [], [], 60)[0], shown
        try:
            read = os.read(end, 4096)
        except OSError:
            read = b""
        if not read:
            break
        shown += read
    return shown


class TestProcesses:
    def test_a_terminal_shows_a_bar_until_it_is_interrupted(
        self, tmp_path: Path, terminal: tuple[int, int]
    ) -> None:
        need_packages_of("demo")
        users, programs = terminal
        given = ["--epochs", "100000", "--output", str(tmp_path)]
        with subprocess.Popen(
            [sys.executable, "-c", SMALL_DEMO, *given],
            stdin=programs,
            stdout=programs,
            stderr=programs,
            start_new_session=True,
        ) as process:
            os.close(programs)
            try:
                shown = read_until(users, b"loss=")
                os.write(users, b"\x03")
                rest = read_until(users, None)
            finally:
                process.kill()
        assert b"\ralpha = +2:   0%|" in shown
        assert b"python -m selkern: interrupted\r\n" in rest
        assert b"Traceback" not in rest
        assert process.returncode == INTERRUPTED

    def test_a_pipe_gets_json_and_no_bar(self, tmp_path: Path) -> None:
        need_packages_of("demo")
        given = ["--epochs", "1", "--json", "--output", str(tmp_path)]
        finished = subprocess.run(
            [sys.executable, "-c", SMALL_DEMO, *given],
            capture_output=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert finished.returncode == 0
        assert [result["alpha"] for result in json.loads(finished.stdout)["results"]] == [2]
        assert b"alpha = +2: 2 steps\n" in finished.stderr
        assert b"\r" not in finished.stderr
        assert b"%|" not in finished.stderr

    def test_ends_quietly_where_nobody_reads(self) -> None:
        reads, writes = os.pipe()
        os.close(reads)
        finished = subprocess.run(
            [sys.executable, "-m", "selkern", "info"],
            stdout=writes,
            stderr=subprocess.PIPE,
            check=False,
        )
        os.close(writes)
        assert finished.stderr == b""
        assert finished.returncode == CLOSED_PIPE


@pytest.mark.parametrize("text", ["cpu", "cuda:0"])
def test_devices_that_are_there_are_taken(text: str) -> None:
    if text != "cpu" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    assert device(text) == torch.device(text)


@NEEDS_GPU
@pytest.mark.parametrize("name", DEMOS)
def test_demos_run_on_the_gpu(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], restore_threads: None
) -> None:
    need_packages_of("demo")
    given = ["--quick", "--epochs", "1", "--json", "--quiet", "--device", "cuda"]
    given += ["--no-benchmark"] if name == "selectivity" else []
    assert main(["demo", name, *given, "--output", str(tmp_path)]) in (0, 1)
    shown = capsys.readouterr()
    assert json.loads(shown.out)["machine"]["device"] == "cuda"
    assert shown.err == ""
