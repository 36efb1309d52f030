"""The report of the selectivity study."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import attrgetter, itemgetter
from pathlib import Path

from selkern.study.folder import Row
from selkern.study.measures import FRACTIONS
from selkern.study.report import Figure, Report, Table, remarks_on_seeds
from selkern.study.selectivity import figures
from selkern.study.selectivity.findings import MAIN, make_findings
from selkern.study.selectivity.presets import SWEPT_EPS, SWEPT_STEP
from selkern.study.selectivity.study import (
    CLEAN,
    FGSM_NAME,
    PGD_NAME,
    SWEPT_NAME,
    TRAINING,
    SelectivityStudy,
)
from selkern.study.selectivity.summary import (
    Network,
    Value,
    alpha_text,
    differences,
    mean_by_seed,
    over_seeds,
    summarise,
)
from selkern.study.statistics import CONFIDENCE

__all__ = ["make_report"]

_ACCURACIES = {"clean": "clean", "corrupted": "corruptions", "fgsm": "FGSM", "pgd": "PGD"}


def make_report(study: SelectivityStudy, rows: Sequence[Row], path: Path) -> Report:
    """Hold the findings against the measurements, and draw the figures into a folder."""
    networks = summarise(rows)
    attacks = (CLEAN, TRAINING, FGSM_NAME, PGD_NAME, SWEPT_NAME)
    names = list(
        dict.fromkeys(row["perturbation"] for row in rows if row["perturbation"] not in attacks)
    )
    if networks:
        figures.draw_robustness(networks, path / "robustness.png")
        figures.draw_corruptions(rows, names, path / "corruptions.png")
        figures.draw_attacks(rows, networks, study.preset.eps, path / "attacks.png")
        figures.draw_dimensionality(rows, names, path / "dimensionality.png")
    return Report(
        title="Class selectivity and robustness (Leavitt & Morcos 2020)",
        about=_about(study, networks, names),
        findings=make_findings(networks, study.images.num_classes),
        tables=[
            _accuracies(networks),
            _differences(networks),
            _dimensionalities(networks),
            _by_corruption(rows, networks, names),
            *_swept(rows, networks),
        ],
        figures=_figures() if networks else [],
        remarks=_remarks(study, networks),
    )


def _about(study: SelectivityStudy, networks: Sequence[Network], names: Sequence[str]) -> list[str]:
    preset, images = study.preset, study.images
    seeds = len({network.seed for network in networks})
    alphas = sorted({network.alpha for network in networks})
    held_out = 0 if images.validation is None else len(images.validation)
    recipe = preset.recipe
    return [
        f"Images: {study.source if study.source == 'digits' else Path(study.source).name}, "
        f"{' x '.join(str(size) for size in images.shape)}, {images.num_classes} classes; "
        f"{len(images.train)} to train on, {held_out} to choose the best epoch by, "
        f"{len(images.test)} to test with.",
        f"Networks: {preset.network}, trained for {recipe.epochs} epochs in batches of "
        f"{recipe.batch_size} by SGD (learning rate {recipe.learning_rate:g}, momentum 0.9, weight "
        f"decay 1e-4{_milestones(recipe.milestones)}) on cross entropy - alpha SI, at alpha = "
        f"{', '.join(f'{alpha:g}' for alpha in alphas)}, with {seeds} seeds each. SI is averaged "
        "over the units of each layer after a ReLU, then over layers; what is reported is that of "
        "the class means over the whole test set.",
        f"Perturbations: {len(names)} corruptions{_published(study)} at five severities; FGSM and "
        f"PGD in the maximum norm at eps = {', '.join(f'{eps:.3g}' for eps in preset.eps)}, PGD "
        f"with {preset.pgd_steps} steps of 2.5 eps over their number from a random start. "
        "Accuracies are plain means over corruptions and severities, or over eps. Dimensionality "
        "is the number of principal components that hold a fraction of the variance of clean minus "
        "perturbed activations, over the width, averaged over layers and perturbations.",
        f"Intervals are BCa bootstrap intervals ({CONFIDENCE:.0%}) over seeds. A finding agrees "
        "where the whole interval lies on the paper's side, disagrees where it lies on the other, "
        "and cannot be told otherwise.",
    ]


def _published(study: SelectivityStudy) -> str:
    return "" if study.corrupted is None else f", as published in {Path(study.corrupted).name},"


def _milestones(milestones: Sequence[int]) -> str:
    if not milestones:
        return ""
    return f", a tenth of it from epochs {', '.join(str(epoch) for epoch in milestones)} on"


def _remarks(study: SelectivityStudy, networks: Sequence[Network]) -> list[str]:
    remarks = [
        f"Correlations are within a seed, over the strengths from {-MAIN:g} to {MAIN:+g} that the "
        "paper mainly compares; beyond them accuracy itself may fall, and everything else with it.",
        "Accuracy under a perturbation contains what a strength does to clean accuracy; the table "
        "of differences also shows the change of the fall from clean to perturbed.",
        "Where most corruptions cost little accuracy, as the table by corruption shows, the few "
        "that cost much decide the mean.",
        *remarks_on_seeds(study.source, len(study.seeds)),
    ]
    if study.corrupted is None:
        remarks.append(
            "Corruptions are made here from the test images, with the published constants for "
            "images of 32 and 64 pixels brought to this size."
        )
    elif any(math.isnan(network.corruption_dimensionality[0]) for network in networks):
        remarks.append(
            "The published corrupted images have no clean counterparts, so that there is no "
            "dimensionality of the change that corruptions cause."
        )
    return remarks


def _accuracies(networks: Sequence[Network]) -> Table:
    values = {"SI": "selectivity", **{title: name for name, title in _ACCURACIES.items()}}
    rows = [
        [
            alpha_text(alpha),
            *(
                over_seeds(networks, alpha, attrgetter(name)).text(".3f" if name == "selectivity"
                else ".1%")
                for name in values.values()
            ),
        ]
        for alpha in _alphas(networks)
    ]  # fmt: skip
    return Table("Selectivity and accuracy", ["alpha", *values], rows)


def _differences(networks: Sequence[Network]) -> Table:
    """What a strength changes, and what is left of that without the change of clean accuracy."""
    values: dict[str, Value] = {title: _points(name) for name, title in _ACCURACIES.items()}
    for name, title in _ACCURACIES.items():
        if name != "clean":
            values[f"{title} - clean"] = _points(name, "clean")
    rows = [
        [
            alpha_text(alpha),
            *(differences(networks, alpha, 0.0, value).text("+.2f") for value in values.values()),
        ]
        for alpha in _alphas(networks)
        if alpha
    ]
    caption = "Difference in accuracy to alpha = 0 of the same seed, percentage points"
    return Table(caption, ["alpha", *values], rows)


def _points(name: str, base: str | None = None) -> Value:
    def value(network: Network) -> float:
        less = 0.0 if base is None else getattr(network, base)
        return float(100 * (getattr(network, name) - less))

    return value


def _dimensionalities(networks: Sequence[Network]) -> Table:
    kinds = {"corruptions": "corruption_dimensionality", "attacks": "attack_dimensionality"}
    columns = [f"{kind}, {fraction:.0%}" for kind in kinds for fraction in FRACTIONS]
    rows = []
    for alpha in _alphas(networks):
        cells = [
            over_seeds(networks, alpha, lambda network: getattr(network, name)[index])  # noqa: B023
            for name in kinds.values()
            for index in range(len(FRACTIONS))
        ]
        rows.append([alpha_text(alpha), *(cell.text(".3f") for cell in cells)])
    return Table("Dimensionality of the change, over the width", ["alpha", *columns], rows)


def _by_corruption(rows: Sequence[Row], networks: Sequence[Network], names: Sequence[str]) -> Table:
    alphas = [alpha for alpha in _alphas(networks) if alpha in (-MAIN, 0.0, MAIN)]
    lines = []
    for name in names:
        of_name = [row for row in rows if row["perturbation"] == name]
        cells = [_mean_over_strengths(of_name, alpha) for alpha in alphas]
        lines.append([name, *cells])
    columns = ["corruption", *(f"alpha = {alpha_text(alpha)}" for alpha in alphas)]
    return Table("Accuracy under each corruption, mean over severities", columns, lines)


def _mean_over_strengths(rows: Sequence[Row], alpha: float) -> str:
    of_alpha = (row for row in rows if row["alpha"] == alpha)
    return mean_by_seed(of_alpha, itemgetter("accuracy")).text(".1%")


def _swept(rows: Sequence[Row], networks: Sequence[Network]) -> list[Table]:
    swept = [row for row in rows if row["perturbation"] == SWEPT_NAME]
    if not swept:
        return []
    counts = sorted({row["strength"] for row in swept})
    lines = [
        [
            alpha_text(alpha),
            *(
                _mean_over_strengths([row for row in swept if row["strength"] == count], alpha)
                for count in counts
            ),
        ]
        for alpha in _alphas(networks)
    ]
    caption = f"Accuracy under PGD of steps of {SWEPT_STEP:g} within {SWEPT_EPS:.3g}"
    return [Table(caption, ["alpha", *(f"{count} steps" for count in counts)], lines)]


def _alphas(networks: Sequence[Network]) -> list[float]:
    return sorted({network.alpha for network in networks})


def _figures() -> list[Figure]:
    return [
        Figure("robustness.png", "Accuracy over measured selectivity, a point a network"),
        Figure(
            "corruptions.png",
            "Accuracy under each corruption: mean over severities and seeds, interval over seeds",
        ),
        Figure(
            "attacks.png",
            "Accuracy under FGSM and PGD over the radius: mean and interval over seeds",
        ),
        Figure(
            "dimensionality.png",
            "Dimensionality of the change in each layer, by corruptions and by attacks: mean over "
            "perturbations and seeds, interval over seeds",
        ),
    ]
