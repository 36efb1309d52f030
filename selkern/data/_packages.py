"""Packages that only the extra ``data`` installs, imported where they are needed."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["needed"]

_INSTALLED_AS = {"PIL": "Pillow", "sklearn": "scikit-learn"}


def needed(module: str, by: str) -> Any:
    """Import a module, or say in one line what needs it and how it is installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        package = _INSTALLED_AS.get(name, name)
        raise ImportError(
            f"{by} needs {package}, which cannot be imported ({error}): pip install {package}"
        ) from None
