"""The figure: spectra of the photographs and of every hidden layer, against 1/n."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from selkern._benchmarks.losses import ANCHOR
from selkern._figure import STYLES, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_spectra"]

STYLE = {"exact": STYLES[0], "frozen": STYLES[2]}


def draw_spectra(panels: Mapping[str, Mapping[str, Tensor]], path: Path) -> None:
    """Draw spectra on logarithmic axes, all divided by their value at the anchor's rank.

    Parameters
    ----------
    panels : mapping
        Spectra by label, by the title of their panel.
    path : Path
        Where to write the picture.
    """
    figure = new_figure(3.2 * len(panels), 3.6)
    for axes, (title, spectra) in zip(figure.subplots(1, len(panels), sharey=True), panels.items()):
        _draw_panel(axes, spectra)
        axes.set_title(title)
    figure.supxlabel("rank n")
    figure.supylabel(f"variance / variance at rank {ANCHOR}")
    figure.savefig(path, dpi=150)


def _draw_panel(axes: Axes, spectra: Mapping[str, Tensor]) -> None:
    length = max(map(len, spectra.values()))
    axes.plot([1, length], [ANCHOR, ANCHOR / length], color="black", linestyle="--", label="1/n")
    for label, spectrum in spectra.items():
        colour, marker = STYLE.get(label, STYLES[1])
        axes.plot(
            torch.arange(1, len(spectrum) + 1),
            spectrum / spectrum[ANCHOR - 1],
            color=colour,
            marker=marker,
            markersize=4,
            markevery=0.1,
            label=label,
        )
    axes.axvline(ANCHOR, color="#bbbbbb", linewidth=0.8, zorder=0)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
