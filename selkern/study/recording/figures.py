"""The figure: a recording's cross-validated spectrum over those of networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from selkern.study.figures import new_figure, tidy
from selkern.study.recording.measure import Measurement
from selkern.study.spectrum.figures import COLOURS, mean_spectrum, one_over_n
from selkern.study.spectrum.summary import Network, kinds

__all__ = ["draw_comparison"]

RECORDING = "#d55e00"
FIT = "#7b3294"


def draw_comparison(measured: Measurement, networks: Sequence[Network], path: Path) -> None:
    """Draw spectra divided by their value at the first rank of the fit.

    One panel for every hidden layer, an architecture a row, or the recording alone.
    """
    architectures = list(dict.fromkeys(network.architecture for network in networks))
    by_row = [[n for n in networks if n.architecture == name] for name in architectures] or [[]]
    columns = max([len(network.layers) for network in networks], default=1)
    figure = new_figure(3.2 * columns + 2.2, 2.8 * len(by_row) + 0.4)
    entries: dict[str, Any] = {}
    for row, of_row in enumerate(by_row):
        layers: list[str | None] = list(of_row[0].layers) if of_row else [None]
        for column, layer in enumerate(layers):
            axes = figure.add_subplot(len(by_row), columns, row * columns + column + 1)
            if layer is not None:
                _draw_networks(axes, of_row, layer, measured.fit.first)
            _draw_recording(axes, measured)
            title = "" if layer is None else f"{of_row[0].architecture}, {layer}"
            label = f"variance / at rank {measured.fit.first}" if column == 0 else ""
            tidy(axes, "rank n" if row == len(by_row) - 1 else "", label, title)
            handles, labels = axes.get_legend_handles_labels()
            entries.update(zip(labels, handles))
    figure.legend(entries.values(), entries, loc="outside right center", frameon=False)
    figure.savefig(path, dpi=120)


def _draw_networks(axes: Any, networks: Sequence[Network], layer: str, at: int) -> None:
    for kind in kinds(networks):
        spectrum = mean_spectrum([n for n in networks if n.kind == kind], layer, at)
        ranks = range(1, len(spectrum) + 1)
        axes.plot(ranks, spectrum, color=COLOURS[kind[1]], linewidth=1, label=kind[1])


def _draw_recording(axes: Any, measured: Measurement) -> None:
    """Draw the recording's values as points, above all lines."""
    fit = measured.fit
    exponent = float(fit.exponent)
    at = np.exp(float(fit.intercept)) * fit.first**-exponent
    spectrum = measured.spectrum.cpu().numpy() / at
    one_over_n(axes, len(spectrum), fit.first)
    ends = np.array([fit.first, fit.last])
    label = f"the recording's fit, exponent {exponent:.2f}"
    axes.plot(ends, (ends / fit.first) ** -exponent, "--", color=FIT, linewidth=1.5, label=label)
    ranks = np.arange(1, len(spectrum) + 1)
    for chosen, fill, label in (
        (spectrum > 0, RECORDING, "recording"),
        (spectrum < 0, "none", "recording, negative, its magnitude"),
    ):
        if chosen.any():
            points = {"markersize": 3, "markerfacecolor": fill, "markeredgecolor": RECORDING}
            magnitude = np.abs(spectrum[chosen])
            axes.plot(ranks[chosen], magnitude, "o", **points, zorder=4, label=label)
