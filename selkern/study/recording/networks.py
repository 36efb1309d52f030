"""The networks of a finished spectrum study, read from its folder."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selkern.study.spectrum.objectives import REGULARIZERS
from selkern.study.spectrum.study import SpectrumStudy
from selkern.study.spectrum.summary import Network, summarise

__all__ = ["load_networks"]


def load_networks(folder: Path) -> list[Network]:
    """Read the finished networks of a spectrum study.

    Raises
    ------
    ValueError
        If the folder is none of a spectrum study, nothing in it is finished, or its results are not
        what such a study writes.
    """
    if not _is_of_spectrum_study(folder / "study.json"):
        raise ValueError(f"{folder} must be the folder of a spectrum study, and it is not")
    results = folder / "results.jsonl"
    text = results.read_bytes() if results.is_file() else b""
    try:
        networks = summarise(json.loads(line) for line in text.splitlines())
        _check(networks)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{results} must hold measurements as a spectrum study writes them, and it does not"
        ) from error
    if not networks:
        raise ValueError(f"{folder} must hold a spectrum study that is finished, and it is not")
    return networks


def _is_of_spectrum_study(settings: Path) -> bool:
    try:
        found = json.loads(settings.read_bytes()) if settings.is_file() else None
    except ValueError:
        return False
    return isinstance(found, dict) and found.get("study") == SpectrumStudy.name


def _check(networks: Sequence[Network]) -> None:
    """Refuse networks whose spectra cannot be compared, with an error of any kind."""
    ranks: dict[str, dict[str, int]] = {}
    for network in networks:
        of_network = {
            name: _count_ranks(layer["spectrum"]) for name, layer in network.layers.items()
        }
        is_known = isinstance(network.architecture, str) and network.regularizer in REGULARIZERS
        if not (is_known and of_network):
            raise ValueError("every network must have an architecture, a regularizer and layers")
        if ranks.setdefault(network.architecture, of_network) != of_network:
            raise ValueError("networks of one architecture must have the same layers")


def _count_ranks(spectrum: Any) -> int:
    is_list = isinstance(spectrum, list)
    if not (is_list and all(isinstance(v, float) and math.isfinite(v) for v in spectrum)):
        raise TypeError("a spectrum must be a list of finite numbers")
    return len(spectrum)
