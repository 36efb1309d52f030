"""Figures that need no display."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["STYLES", "new_figure"]

STYLES = (("#0072b2", "v"), ("#555555", "o"), ("#d55e00", "^"))
"""Colours and markers: distinguishable with the common colour deficiencies, and in grey."""


def new_figure(width: float, height: float) -> Figure:
    """A figure that is drawn into memory."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
