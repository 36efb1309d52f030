"""The figure: accuracy under PGD over its radius, for every kind of network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from selkern._figure import STYLES, new_figure
from selkern.demo.attack.evaluate import EPS

__all__ = ["draw_accuracy"]


def draw_accuracy(
    networks: Mapping[str, Sequence[Sequence[float]]], trained_at: float, path: Path
) -> None:
    """Draw the mean accuracy of the networks of each kind, and all of them as a shade.

    Parameters
    ----------
    networks : mapping
        By the title of a kind, the accuracies of each of its networks: clean, then by eps.
    trained_at : float
        The radius of the attack in training.
    path : Path
        Where to write the picture.
    """
    figure = new_figure(6, 4)
    axes = figure.add_subplot()
    radii = [0.0, *EPS]
    for (title, lines), (colour, marker) in zip(networks.items(), [*STYLES, ("#000000", "s")]):
        points = list(zip(*lines, strict=True))
        means = [sum(values) / len(values) for values in points]
        axes.plot(radii, means, color=colour, marker=marker, markersize=4, label=title)
        lowest, highest = list(map(min, points)), list(map(max, points))
        axes.fill_between(radii, lowest, highest, color=colour, alpha=0.2, linewidth=0)
    axes.axvline(trained_at, color="#bbbbbb", linewidth=0.8, zorder=0)
    axes.set_xlabel("eps of PGD (line: in training)")
    axes.set_ylabel("accuracy")
    axes.set_ylim(0, 1)
    axes.set_title("Digits, whole test set")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
