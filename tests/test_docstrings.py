"""The examples in the documentation of the public names, and that each has one."""

from __future__ import annotations

import doctest
import inspect
from types import ModuleType

import pytest
import torch

import selkern
from selkern import analysis, attacks, data, reference

RESULTS = ("EighResult", "PerturbationDimensionality", "PowerLawFit", "Recording", "Splits")
MODULES = (selkern, selkern.linalg, reference, reference.linalg, analysis, attacks, data)
OBJECTS = [
    (module, name)
    for module in MODULES
    for name in module.__all__
    if callable(getattr(module, name)) and name not in RESULTS
]
FUNCTIONS = [case for case in OBJECTS if case[1] != "build_info"]


def _name(value: object) -> str:
    return value.__name__ if isinstance(value, ModuleType) else str(value)


@pytest.mark.parametrize(("module", "name"), FUNCTIONS, ids=_name)
def test_examples_run(module: ModuleType, name: str) -> None:
    for package in ("sklearn", "kornia", "PIL") if module is data else ():
        pytest.importorskip(package)
    documented = getattr(module, name)
    names = {**vars(inspect.getmodule(documented)), "torch": torch}
    tests = doctest.DocTestFinder().find(documented, name, globs=names)
    assert any(test.examples for test in tests)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    output: list[str] = []
    for test in tests:
        runner.run(test, out=output.append)
    assert runner.failures == 0, "".join(output)


@pytest.mark.parametrize(("module", "name"), FUNCTIONS, ids=_name)
def test_every_parameter_is_documented(module: ModuleType, name: str) -> None:
    documented = getattr(module, name)
    text = inspect.getdoc(documented)
    parameters = inspect.signature(documented).parameters
    assert all(parameter in text for parameter in parameters)
    for section in ("Parameters", "Examples") if parameters else ("Examples",):
        assert f"{section}\n{'-' * len(section)}\n" in text


@pytest.mark.parametrize(
    ("module", "name"), [case for case in FUNCTIONS if "reference" in case[0].__name__], ids=_name
)
def test_the_reference_has_the_signatures_of_the_package(module: ModuleType, name: str) -> None:
    of_package = selkern if module is reference else selkern.linalg
    public = inspect.signature(getattr(of_package, name))
    plain = inspect.signature(getattr(module, name))
    assert list(public.parameters) == list(plain.parameters)
    for parameter in public.parameters:
        assert public.parameters[parameter].default == plain.parameters[parameter].default
        assert public.parameters[parameter].kind == plain.parameters[parameter].kind


def test_every_public_function_has_a_reference() -> None:
    others = {"__version__", "analysis", "build_info", "data", "reference"}
    others |= {"SelectivityRegularizer", "SpectralRegularizer"}
    assert set(selkern.__all__) - others == set(reference.__all__)
