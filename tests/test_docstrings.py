"""The examples in the documentation of the public names, and that each has one."""

from __future__ import annotations

import doctest
import inspect
from types import ModuleType

import pytest
import torch

import selkern
from selkern import reference

OBJECTS = [
    (module, name)
    for module in (selkern, reference)
    for name in module.__all__
    if not isinstance(getattr(module, name), (ModuleType, str))
]
FUNCTIONS = [case for case in OBJECTS if case[1] != "build_info"]


def _name(value: object) -> str:
    return value.__name__ if isinstance(value, ModuleType) else str(value)


@pytest.mark.parametrize(("module", "name"), FUNCTIONS, ids=_name)
def test_examples_run(module: ModuleType, name: str) -> None:
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
    for parameter in inspect.signature(documented).parameters:
        assert parameter in text
    for section in ("Parameters", "Examples"):
        assert f"{section}\n{'-' * len(section)}\n" in text


@pytest.mark.parametrize("name", reference.__all__)
def test_the_reference_has_the_signatures_of_the_package(name: str) -> None:
    public = inspect.signature(getattr(selkern, name))
    plain = inspect.signature(getattr(reference, name))
    assert list(public.parameters) == list(plain.parameters)
    for parameter in public.parameters:
        assert public.parameters[parameter].default == plain.parameters[parameter].default
        assert public.parameters[parameter].kind == plain.parameters[parameter].kind


def test_every_public_function_has_a_reference() -> None:
    others = {"SelectivityRegularizer", "__version__", "build_info", "reference"}
    assert set(selkern.__all__) - others == set(reference.__all__)
