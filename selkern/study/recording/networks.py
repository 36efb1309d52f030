"""The networks of a finished spectrum study, read from its folder."""

from __future__ import annotations

import json
from pathlib import Path

from selkern.study.spectrum.study import SpectrumStudy
from selkern.study.spectrum.summary import Network, summarise

__all__ = ["load_networks"]


def load_networks(folder: Path) -> list[Network]:
    """Read the finished networks of a spectrum study.

    Raises
    ------
    ValueError
        If the folder is none of a spectrum study, or nothing in it is finished.
    """
    settings = folder / "study.json"
    if (
        not settings.is_file()
        or json.loads(settings.read_text()).get("study") != SpectrumStudy.name
    ):
        raise ValueError(f"{folder} must be the folder of a spectrum study, and it is not")
    results = folder / "results.jsonl"
    lines = results.read_text(encoding="utf-8").splitlines() if results.is_file() else []
    networks = summarise(json.loads(line) for line in lines)
    if not networks:
        raise ValueError(f"{folder} must hold a spectrum study that is finished, and it is not")
    return networks
