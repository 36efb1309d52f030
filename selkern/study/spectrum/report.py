"""The report of the spectrum study."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path

from selkern.study.findings import AGREES, Finding
from selkern.study.folder import Row
from selkern.study.report import Figure, Report, Table, remarks_on_seeds
from selkern.study.spectrum import figures
from selkern.study.spectrum.findings import make_findings
from selkern.study.spectrum.networks import hidden_widths
from selkern.study.spectrum.objectives import ALL, ALL_FROZEN, NONE, WHITENING
from selkern.study.spectrum.presets import PUBLISHED_SEEDS
from selkern.study.spectrum.study import FIRST_RANK, KEPT_RANKS, LAST_RANK, SpectrumStudy
from selkern.study.spectrum.summary import (
    MARGIN,
    Network,
    Value,
    differences,
    kinds,
    over_seeds,
    stronger_fgsm,
    summarise,
)
from selkern.study.statistics import CONFIDENCE, interval

__all__ = ["make_report", "remarks_on_masking"]

_VALUES = {"clean": "clean", "FGSM": "fgsm", "PGD": "pgd", "noise": "noise"}
_FITS = {
    "exponent": f"the last, at most {KEPT_RANKS}",
    f"exponent to rank {LAST_RANK}": f"{LAST_RANK}",
}


def make_report(study: SpectrumStudy, rows: Sequence[Row], path: Path) -> Report:
    """Hold the findings against the measurements, and draw the figures into a folder."""
    networks = summarise(rows)
    findings = make_findings(networks)
    if networks:
        figures.draw_spectra(networks, path / "spectra.png")
        figures.draw_robustness(networks, path / "robustness.png")
    return Report(
        title="A 1/n spectrum and robustness (Nassar et al. 2020)",
        about=_about(study, networks),
        findings=findings,
        tables=[_accuracies(networks), _differences(networks), *_exponents(networks)],
        figures=_figures() if networks else [],
        remarks=[*remarks_on_masking(findings), *_remarks(study, networks)],
    )


def _about(study: SpectrumStudy, networks: Sequence[Network]) -> list[str]:
    preset, images = study.preset, study.images
    seeds = len({network.seed for network in networks})
    return [
        f"Images: {study.source if study.source == 'digits' else Path(study.source).name}, "
        f"{' x '.join(str(size) for size in images.shape)}, {images.num_classes} classes; "
        f"{len(images.train)} to train on, {len(images.test)} to test with.",
        f"Networks: {'; '.join(_network(study, name) for name in study.networks)}; {seeds} seeds "
        "of each. All train with Adam (amsgrad), and the last epoch counts.",
        "Regularizers: the 1/n penalty from rank 12 on, in the last hidden layer or in all of "
        "them, with each batch's own eigenvalues or, frozen, along eigenvectors of all training "
        "images that are found once an epoch, which is the published method; whitening of every "
        "hidden layer after its activation by the Cholesky factor of covariance + 1e-5 I; half the "
        f"squared norm of the input-output Jacobian, estimated by one random projection, times "
        f"{preset.jacobian:g}.",
        "Perturbations: FGSM and PGD in the maximum norm at eps = "
        f"{', '.join(f'{eps:.3g}' for eps in preset.eps)}, PGD with {preset.pgd_steps} steps of "
        "2.5 eps over their number from a random start; gaussian noise of standard deviation "
        f"{', '.join(f'{deviation:g}' for deviation in preset.noise)}, clipped to [0, 1]. "
        "Accuracy over the radii is the area under accuracy over eps, from 0 on, divided by the "
        "largest: a mean accuracy.",
        f"Intervals are BCa bootstrap intervals ({CONFIDENCE:.0%}) over seeds; differences are "
        "between networks of the same seed. A finding agrees where the whole interval lies on the "
        "paper's side, disagrees where it lies on the other, and cannot be told otherwise.",
    ]


def _network(study: SpectrumStudy, name: str) -> str:
    plan = study.preset.networks[name]
    widths = hidden_widths(plan.architecture, study.images.shape)
    recipe = plan.recipe
    return (
        f"{name}, hidden layers of {', '.join(str(width) for width in widths)} units with tanh, "
        f"{recipe.epochs} epochs in batches of {recipe.batch_size}, learning rate "
        f"{recipe.learning_rate:g}, beta {plan.beta:g} summed over layers"
    )


def _remarks(study: SpectrumStudy, networks: Sequence[Network]) -> list[str]:
    worse, count, excess = stronger_fgsm(networks)
    remarks = [
        *_reached(networks),
        f"Of {count} networks, {worse} have at some eps an accuracy under PGD that is above that "
        f"under FGSM by more than {MARGIN:.0%} of the images (at most {excess:.1%}). Attacks with "
        "many steps that do worse than one step tell of gradients that mislead them; beyond that, "
        "nothing was done against masked gradients, no adaptive or gradient-free attack, and tanh "
        "units that saturate can mask them.",
        "Regularized networks differ in clean accuracy too, where each curve begins; the "
        "differences to networks without a regularizer are below.",
        "That 1/n is more robust is in the paper's abstract and in a review; that the last layer "
        "is not enough is in a review alone. The radii of the attacks and the noise are ours.",
        f"The paper trained {PUBLISHED_SEEDS} networks of each kind, and tried several strengths: "
        "beta of 1, 2 and 5, and of 0.01, 0.1 and 2 for all layers. --beta in another folder "
        "tries another.",
        *remarks_on_seeds(study.source, len({network.seed for network in networks})),
    ]
    if WHITENING in study.regularizers:
        remarks.append(
            "Whitening with running averages, like those of BatchNorm, when it is measured is our "
            "reading of the paper."
        )
    return remarks


def remarks_on_masking(findings: Sequence[Finding]) -> list[str]:
    """Gains against one step that many steps do not confirm."""
    verdicts = {finding.measure: finding.verdict for finding in findings}
    names = [
        measure.split(", percentage")[0].replace("accuracy over the radii of FGSM: ", "")
        for measure, verdict in verdicts.items()
        if "FGSM" in measure
        and verdict == AGREES
        and verdicts[measure.replace("FGSM", "PGD")] != AGREES
    ]
    if not names:
        return []
    return [
        f"More robust to FGSM, and not measurably to the stronger PGD: {'; '.join(names)}. A gain "
        "against a single step alone is what masked gradients look like."
    ]


def _reached(networks: Sequence[Network]) -> list[str]:
    """How near 1/n the penalised layers come: about the method, not about the paper."""
    lines = []
    for kind in kinds(networks):
        if kind[1] not in (ALL, ALL_FROZEN):
            continue
        of_kind = [network for network in networks if network.kind == kind]
        texts = [_exponent(of_kind, layer, "exponent") for layer in of_kind[0].layers]
        lines.append(f"{kind[0]}, {kind[1]}: the exponents reached are {', '.join(texts)}.")
    return lines


def _accuracies(networks: Sequence[Network]) -> Table:
    rows = [
        [
            ", ".join(kind),
            *(
                over_seeds(networks, kind, attrgetter(value)).text(".1%")
                for value in _VALUES.values()
            ),
        ]
        for kind in kinds(networks)
    ]
    return Table("Accuracy, clean and over all strengths", ["network", *_VALUES], rows)


def _differences(networks: Sequence[Network]) -> Table:
    rows = []
    for architecture, regularizer in kinds(networks):
        if regularizer == NONE or (architecture, NONE) not in kinds(networks):
            continue
        cells = [
            differences(networks, architecture, regularizer, NONE, _points(value)).text("+.2f")
            for value in _VALUES.values()
        ]
        rows.append([f"{architecture}, {regularizer}", *cells])
    caption = "Difference to the network of the same seed without a regularizer, percentage points"
    return Table(caption, ["network", *_VALUES], rows)


def _points(name: str) -> Value:
    return lambda network: 100 * float(getattr(network, name))


def _exponents(networks: Sequence[Network]) -> list[Table]:
    columns = list(dict.fromkeys(layer for network in networks for layer in network.layers))
    tables = []
    for fit, ranks in _FITS.items():
        rows = []
        for kind in kinds(networks):
            of_kind = [network for network in networks if network.kind == kind]
            cells = [_exponent(of_kind, layer, fit) for layer in columns]
            rows.append([", ".join(kind), *cells])
        caption = f"Exponent of each hidden layer, ranks {FIRST_RANK} to {ranks}"
        tables.append(Table(caption, ["network", *columns], rows))
    return tables


def _exponent(networks: Sequence[Network], layer: str, fit: str) -> str:
    found = [network.layers[layer][fit] for network in networks if layer in network.layers]
    values = [value for value in found if value is not None]
    return interval(values).text(".2f") if values else "-"


def _figures() -> list[Figure]:
    return [
        Figure(
            "spectra.png",
            "Spectra of the hidden layers over the training images, mean over seeds, with 1/n",
        ),
        Figure(
            "robustness.png",
            "Accuracy over the strength of FGSM, PGD and noise; shades are intervals over seeds",
        ),
    ]
