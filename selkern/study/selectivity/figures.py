"""The figures of the selectivity study, laid out as the paper's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from selkern.study.figures import colours, draw_lines, new_figure, tidy
from selkern.study.folder import Row
from selkern.study.measures import FRACTIONS
from selkern.study.selectivity.findings import MAIN
from selkern.study.selectivity.study import FGSM_NAME, PGD_NAME
from selkern.study.selectivity.summary import Network, alpha_text, mean_by_seed, over_seeds
from selkern.study.statistics import Interval, interval

__all__ = ["draw_attacks", "draw_corruptions", "draw_dimensionality", "draw_robustness"]


def draw_robustness(networks: Sequence[Network], path: Path) -> None:
    """Draw accuracy over measured selectivity: clean, under corruptions, FGSM and PGD."""
    figure = new_figure(11, 3)
    alphas = sorted({network.alpha for network in networks})
    panels = {"clean": "clean", "corrupted": "corruptions", "fgsm": "FGSM", "pgd": "PGD"}
    for index, (value, title) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), index + 1)
        for alpha, colour in zip(alphas, colours(len(alphas)), strict=True):
            of_alpha = [network for network in networks if network.alpha == alpha]
            axes.scatter(
                [network.selectivity for network in of_alpha],
                [getattr(network, value) for network in of_alpha],
                s=9,
                color=colour,
                label=alpha_text(alpha),
            )
        tidy(axes, "selectivity index, test set", "accuracy", title)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, title="alpha", loc="outside right center", frameon=False)
    figure.savefig(path, dpi=120)


def draw_corruptions(rows: Sequence[Row], names: Sequence[str], path: Path) -> None:
    """Draw accuracy under each corruption, over its severities, at alpha = -2, 0 and +2."""
    alphas = [alpha for alpha in (-MAIN, 0.0, MAIN) if any(row["alpha"] == alpha for row in rows)]
    figure = new_figure(10, 3.4)
    axes = figure.add_subplot()
    width = 0.8 / max(1, len(alphas))
    for index, (alpha, colour) in enumerate(zip(alphas, colours(len(alphas)), strict=True)):
        means = [_accuracy(rows, alpha, name) for name in names]
        places = [place + (index - (len(alphas) - 1) / 2) * width for place in range(len(names))]
        heights = [mean.mean for mean in means]
        errors = [
            [0.0 if m.low is None else m.mean - m.low for m in means],
            [0.0 if m.high is None else m.high - m.mean for m in means],
        ]
        axes.bar(
            places,
            heights,
            width,
            yerr=errors,
            color=colour,
            label=f"alpha = {alpha_text(alpha)}",
            error_kw={"linewidth": 0.7},
        )
    axes.set_xticks(range(len(names)), [name.replace("_", " ") for name in names], rotation=40,
                    ha="right")  # fmt: skip
    tidy(axes, "", "accuracy, mean over severities")
    figure.legend(loc="outside upper right", frameon=False, ncols=3)
    figure.savefig(path, dpi=120)


def _accuracy(rows: Sequence[Row], alpha: float, name: str) -> Interval:
    of_name = (row for row in rows if (row["alpha"], row["perturbation"]) == (alpha, name))
    return mean_by_seed(of_name, itemgetter("accuracy"))


def draw_attacks(
    rows: Sequence[Row], networks: Sequence[Network], eps: Sequence[float], path: Path
) -> None:
    """Draw accuracy under FGSM and PGD over the radius."""
    figure = new_figure(9, 3.4)
    alphas = sorted({network.alpha for network in networks})
    for index, attack in enumerate((FGSM_NAME, PGD_NAME)):
        axes = figure.add_subplot(1, 2, index + 1)
        lines = {
            alpha_text(alpha): [
                over_seeds(networks, alpha, lambda network: network.clean),
                *(_at(rows, alpha, attack, radius) for radius in eps),
            ]
            for alpha in alphas
        }
        draw_lines(axes, [0.0, *eps], lines, colours(len(alphas)))
        tidy(axes, "eps", "accuracy", attack)
        axes.set_ylim(0, 1)
    axes.legend(title="alpha", frameon=False, fontsize=8)
    figure.savefig(path, dpi=120)


def _at(rows: Sequence[Row], alpha: float, perturbation: str, strength: float) -> Interval:
    wanted = (alpha, perturbation, strength)
    return interval(
        [
            row["accuracy"]
            for row in rows
            if (row["alpha"], row["perturbation"], row["strength"]) == wanted
        ]
    )


def draw_dimensionality(rows: Sequence[Row], corruptions: Sequence[str], path: Path) -> None:
    """Draw the dimensionality of the change layer by layer, for every fraction of variance."""
    changed = [row for row in rows if row.get("dimensionality")]
    alphas = sorted({row["alpha"] for row in changed})
    layers = list(changed[0]["dimensionality"]) if changed else []
    kinds: dict[str, Callable[[str], bool]] = {
        "corruptions": lambda name: name in corruptions,
        "attacks": lambda name: name in (FGSM_NAME, PGD_NAME),
    }
    figure = new_figure(3.4 * len(FRACTIONS), 5.4)
    for line, (kind, is_of_kind) in enumerate(kinds.items()):
        of_kind = [row for row in changed if is_of_kind(row["perturbation"])]
        for column, fraction in enumerate(FRACTIONS):
            axes = figure.add_subplot(
                len(kinds), len(FRACTIONS), line * len(FRACTIONS) + column + 1
            )
            lines = {
                alpha_text(alpha): [
                    mean_by_seed(
                        (row for row in of_kind if row["alpha"] == alpha),
                        lambda row: row["dimensionality"][layer][column],  # noqa: B023
                    )
                    for layer in layers
                ]
                for alpha in alphas
            }
            draw_lines(axes, list(range(1, len(layers) + 1)), lines, colours(len(alphas)))
            label = f"components / width, {kind}" if column == 0 else ""
            tidy(axes, "layer" if line else "", label, f"{fraction:.0%} of variance")
    _legend(figure, "alpha")
    figure.savefig(path, dpi=120)


def _legend(figure: Any, title: str) -> None:
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, title=title, loc="outside right center", frameon=False)
