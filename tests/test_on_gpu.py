"""What `make cuda` does around the programs that it runs."""

from __future__ import annotations

import fnmatch
import os
import re
import sys
import time
from pathlib import Path

import on_gpu
import on_gpu_profile
import pytest
from on_gpu_machine import folder_name
from on_gpu_report import complaint, copy_out, summary
from on_gpu_run import FAILED, PASSED, SKIPPED, TIMED_OUT, Deadline, Program, Result, Runner

TESTS = Path(__file__).parent
NO_GPU = {"torch": "2.11.0", "gpus": 0, "gpu": None, "missing": [], "executable": "/path"}


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path, tmp_path, dict(os.environ), Deadline(1))


def python(name: str, code: str) -> Program:
    return Program(name, [sys.executable, "-c", code])


def test_programs_end_in_one_of_four_ways(runner: Runner) -> None:
    assert runner.run("a", python("b", "print(5)"), 30).status == PASSED
    assert runner.run("a", python("b", "print(5)"), 30).output == "5\n"
    failed = runner.run("a", python("b", "raise SystemExit(3)"), 30)
    assert (failed.status, failed.returncode) == (FAILED, 3)
    assert runner.run("a", Program("b", ["/no/such/program"]), 30).status == FAILED
    assert runner.run("a", python("b", "import time; time.sleep(60)"), 1).status == TIMED_OUT
    runner.deadline.end = 0
    assert runner.run("a", python("b", "print(5)"), 30).status == SKIPPED


def test_a_limit_ends_the_children_too(runner: Runner, tmp_path: Path) -> None:
    child = f"import time; time.sleep(3); open({str(tmp_path / 'late')!r}, 'w')"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    assert runner.run("a", python("b", parent), 1).status == TIMED_OUT
    time.sleep(3)
    assert not (tmp_path / "late").exists()


def test_programs_share_a_limit(runner: Runner) -> None:
    programs = [python(str(i), "import time; time.sleep(60)") for i in range(3)]
    statuses = [result.status for result in runner.run_all("a", programs, 1.5, 1)]
    assert statuses == [TIMED_OUT, SKIPPED, SKIPPED]


def test_every_file_with_tests_for_a_gpu_is_named() -> None:
    sources = {path.name: path.read_text("utf-8") for path in TESTS.glob("test_*.py")}

    def having(pattern: str) -> set[str]:
        return {name for name, text in sources.items() if re.search(pattern, text, re.MULTILINE)}

    whole = having(r"^pytestmark\b.*\bNEEDS_GPU\b")
    mixed = having(r"\b(device|anywhere): torch\.device\b") - whole
    assert set(on_gpu.MIXED_TESTS) == mixed
    assert set(on_gpu.GPU_TESTS) == mixed | whole


def test_without_a_gpu_nothing_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(on_gpu, "describe", lambda: NO_GPU)
    assert on_gpu.main([]) == 2
    assert capsys.readouterr().out.count("\n") == 1


def test_the_line_of_a_sanitizer_that_sums_up() -> None:
    output = "========= COMPUTE-SANITIZER\n1.0\n========= ERROR SUMMARY: 2 errors\n"
    assert complaint(output) == "ERROR SUMMARY: 2 errors"
    assert complaint("========= Device not supported\n") == "Device not supported"
    assert complaint("") == ""


def test_what_a_profiler_saw_is_a_row_for_each_kernel_and_grid() -> None:
    names = ["ID", "Kernel Name", "Grid Size", *on_gpu_profile.METRICS.values()]
    units = ["", "", "", "ns", *["%"] * (len(names) - 4)]
    name = "void selkern::cuda::(anonymous namespace)::add_kernel<float>(P)"
    times = ["1,000", "3,000", "2,000"]
    launches = [[str(i), name, "(8, 1, 1)", time, *["50"] * 9] for i, time in enumerate(times)]
    lines = [",".join(f'"{cell}"' for cell in row) for row in (names, units, *launches)]
    output = "\n".join(["==PROF== Connected", *lines])
    [row] = on_gpu_profile.rows_of(output)
    assert row == ["`add_kernel<float>`", "(8, 1, 1)", "3", "2.0", *["50.0"] * 9]
    assert on_gpu_profile.table(output).splitlines()[-1] == "| " + " | ".join(row) + " |"
    with pytest.raises(ValueError, match="unpack"):
        on_gpu_profile.table("==ERROR== No permission")


def test_the_profiler_has_kernels_of_every_family_to_watch() -> None:
    works = pytest.importorskip("selkern._benchmarks.works").CUDA_WORKS
    for glob in on_gpu_profile.WORKS:
        assert fnmatch.filter(works, glob)


def test_the_summary_tells_no_paths(tmp_path: Path) -> None:
    results = [Result("build", "selkern", PASSED, 3.0, "a|b")]
    text = summary(NO_GPU, results, None, "end")
    assert "| build | selkern | passed | 3 | a\\|b |" in text
    assert "/path" not in text
    assert "Nothing was measured." in text


def test_results_are_copied_flat(tmp_path: Path) -> None:
    folder, logs, out = tmp_path / "results", tmp_path / "logs", tmp_path / "out"
    folder.mkdir()
    logs.mkdir()
    (folder / "benchmark.json").write_text("{}")
    (folder / "other").write_text("")
    (logs / "a.log").write_text("first")
    copy_out(folder, logs, out)
    assert sorted(path.name for path in out.iterdir()) == ["benchmark.json", "on_gpu.log"]
    assert "first" in (out / "on_gpu.log").read_text()


@pytest.mark.parametrize(
    ("gpu", "folder"),
    [("NVIDIA H200", "h200"), ("NVIDIA GeForce RTX 4090", "rtx-4090"), (None, "none")],
)
def test_results_lie_under_the_name_of_the_gpu(gpu: str | None, folder: str) -> None:
    assert folder_name(gpu) == folder
