"""What the figures of all studies share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from selkern._figure import new_figure
from selkern.study.statistics import Interval

__all__ = ["colours", "draw_lines", "new_figure", "tidy"]


def colours(count: int) -> list[Any]:
    """So many colours from blue over grey to orange, for values that have an order."""
    from matplotlib.colors import LinearSegmentedColormap

    scale = LinearSegmentedColormap.from_list("ordered", ["#0072b2", "#888888", "#d55e00"])
    return [scale(0.5 if count == 1 else index / (count - 1)) for index in range(count)]


def draw_lines(
    axes: Any, x: Sequence[Any], lines: Mapping[str, Sequence[Interval]], palette: Sequence[Any]
) -> None:
    """Draw means over seeds as lines, and their intervals as shades."""
    for (label, values), colour in zip(lines.items(), palette, strict=True):
        axes.plot(x, [v.mean for v in values], "o-", color=colour, markersize=3, label=label)
        low = [v.mean if v.low is None else v.low for v in values]
        high = [v.mean if v.high is None else v.high for v in values]
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)


def tidy(axes: Any, x: str, y: str, title: str = "") -> None:
    """Name the axes, and take away the frame's upper and right side."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
