"""Fixtures of the pytest-benchmark suites."""

from __future__ import annotations

from typing import Any

import pytest

from . import machine
from .measure import check
from .work import Contender, Work
from .works import inputs


def pytest_addoption(parser: pytest.Parser) -> None:
    """The seed that the command hands on."""
    parser.addoption("--inputs-seed", type=int, default=0)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One benchmark for every contender of the module's works."""
    if "contender" not in metafunc.fixturenames:
        return
    cases = [(work, entry) for work in metafunc.module.WORKS for entry in work.contenders.values()]
    names = [f"{work.name}-{entry.method}" for work, entry in cases]
    metafunc.parametrize(("work", "contender"), cases, indirect=["work"], ids=names, scope="module")


@pytest.fixture(scope="module")
def work(request: pytest.FixtureRequest) -> Work:
    """The work with its inputs, kept for all its contenders."""
    with inputs.seeded(request.config.getoption("inputs_seed")):
        return request.param()


@pytest.fixture
def measure(benchmark: Any, work: Work, contender: Contender) -> Any:
    """Check the contender against float64, then time it."""
    agreement = check(work, contender.label)
    if isinstance(agreement, str):
        raise pytest.skip.Exception(agreement)
    benchmark.group = work.title
    benchmark.extra_info.update(
        contender=contender.label,
        role=contender.role,
        dtype=str(work.dtype).removeprefix("torch."),
        moved_bytes=work.moved_bytes(),
        loss=agreement.loss,
        value_error=agreement.value_error,
        gradient_error=agreement.gradient_error,
        work=work.name,
        **machine.describe(),
    )
    return benchmark(work.repetition(contender.label))


def pytest_benchmark_update_json(
    config: pytest.Config, benchmarks: list[Any], output_json: dict[str, Any]
) -> None:
    """Describe the machine without its name, and leave out every single time."""
    output_json["machine_info"] = machine.describe()
    output_json.pop("commit_info", None)
    for result in output_json["benchmarks"]:
        result["stats"].pop("data", None)
        result.pop("param", None)
        result.pop("params", None)
