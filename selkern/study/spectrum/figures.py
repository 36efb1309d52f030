"""The figures of the spectrum study, laid out as the paper's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from selkern.study.figures import draw_lines, new_figure, tidy
from selkern.study.spectrum.objectives import REGULARIZERS
from selkern.study.spectrum.presets import ANCHOR
from selkern.study.spectrum.study import FGSM_NAME, NOISE, PGD_NAME
from selkern.study.spectrum.summary import Network, kinds
from selkern.study.statistics import interval

__all__ = ["COLOURS", "draw_robustness", "draw_spectra", "mean_spectrum", "one_over_n"]

# Distinguishable with the common colour deficiencies (Okabe and Ito).
COLOURS = dict(
    zip(
        REGULARIZERS,
        ("#555555", "#e69f00", "#f0c060", "#0072b2", "#56b4e9", "#cc79a7", "#009e73"),
        strict=True,
    )
)
PANELS = {FGSM_NAME: "eps", PGD_NAME: "eps", NOISE: "standard deviation"}


def draw_spectra(networks: Sequence[Network], path: Path) -> None:
    """Draw the spectrum of every hidden layer, an architecture a row, divided at the anchor."""
    rows = _by_architecture(networks)
    columns = max(len(of_row[0].layers) for of_row in rows)
    figure = new_figure(3.2 * columns + 1.8, 2.8 * len(rows))
    for row, of_row in enumerate(rows):
        for column, layer in enumerate(of_row[0].layers):
            axes = figure.add_subplot(len(rows), columns, row * columns + column + 1)
            longest = 1
            for kind in kinds(of_row):
                spectrum = mean_spectrum([n for n in of_row if n.kind == kind], layer)
                longest = max(longest, len(spectrum))
                axes.plot(
                    range(1, len(spectrum) + 1), spectrum, color=COLOURS[kind[1]], label=kind[1]
                )
            one_over_n(axes, longest)
            title = f"{of_row[0].architecture}, {layer}"
            label = f"variance / at rank {ANCHOR}" if column == 0 else ""
            tidy(axes, "rank n" if row == len(rows) - 1 else "", label, title)
    _legend(figure)
    figure.savefig(path, dpi=120)


def mean_spectrum(networks: Sequence[Network], layer: str, at: int = ANCHOR) -> Any:
    """Geometric mean over networks of a layer's spectrum, each divided by its value at a rank.

    Ranks at which a network has no variance are left out.
    """
    spectra = np.array([network.layers[layer]["spectrum"] for network in networks])
    positive = spectra[:, : int((spectra > 0).all(0).sum())]
    if positive.shape[1] < at:
        return np.empty(0)
    return np.exp(np.log(positive / positive[:, at - 1 : at]).mean(0))


def one_over_n(axes: Any, ranks: int, at: int = ANCHOR) -> None:
    """Draw the 1/n line on logarithmic axes."""
    axes.plot([1, ranks], [at, at / ranks], color="black", linestyle="--", label="1/n")
    axes.axvline(at, color="#bbbbbb", linewidth=0.8, zorder=0)
    axes.set_xscale("log")
    axes.set_yscale("log")


def draw_robustness(networks: Sequence[Network], path: Path) -> None:
    """Draw accuracy under FGSM, PGD and noise over their strength, an architecture a row."""
    rows = _by_architecture(networks)
    figure = new_figure(3.2 * len(PANELS) + 1.8, 2.8 * len(rows))
    for row, of_row in enumerate(rows):
        for column, (name, label) in enumerate(PANELS.items()):
            axes = figure.add_subplot(len(rows), len(PANELS), row * len(PANELS) + column + 1)
            strengths = sorted(of_row[0].curves[name])
            lines = {
                kind[1]: [
                    interval([n.curves[name][strength] for n in of_row if n.kind == kind])
                    for strength in strengths
                ]
                for kind in kinds(of_row)
            }
            draw_lines(axes, strengths, lines, [COLOURS[regularizer] for regularizer in lines])
            axes.set_ylim(0, 1)
            title = f"{of_row[0].architecture}, {name}"
            tidy(axes, label, "accuracy" if column == 0 else "", title)
    _legend(figure)
    figure.savefig(path, dpi=120)


def _by_architecture(networks: Sequence[Network]) -> list[list[Network]]:
    names = dict.fromkeys(network.architecture for network in networks)
    return [[n for n in networks if n.architecture == name] for name in names]


def _legend(figure: Any) -> None:
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        entries.update(zip(labels, handles))
    figure.legend(entries.values(), entries, loc="outside right center", frameon=False)
