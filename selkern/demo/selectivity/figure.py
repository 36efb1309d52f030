"""The figure: selectivity of every layer at every alpha."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from selkern._figure import STYLES, new_figure
from selkern.demo.selectivity.report import alpha_text

__all__ = ["draw_selectivity"]


def draw_selectivity(index: Mapping[float, Mapping[str, float]], path: Path) -> None:
    """Draw the selectivity index of each layer, a line for every alpha.

    Parameters
    ----------
    index : mapping
        Selectivity index by alpha and layer name.
    path : Path
        Where to write the picture.
    """
    figure = new_figure(6, 4)
    axes = figure.add_subplot()
    for position, (alpha, layers) in enumerate(index.items()):
        colour, marker = STYLES[position % len(STYLES)]
        axes.plot(
            list(layers),
            list(layers.values()),
            color=colour,
            marker=marker,
            label=f"alpha = {alpha_text(alpha)}",
        )
    axes.set_xlabel("layer")
    axes.set_ylabel("class selectivity index, mean over units")
    axes.set_ylim(0, 1)
    axes.set_title("Digits, whole test set")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
