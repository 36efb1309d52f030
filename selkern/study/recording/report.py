"""The report on a recording."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from selkern.study.recording.measure import HALVES, Measurement
from selkern.study.report import Figure, Report, Table
from selkern.study.spectrum.study import exponent
from selkern.study.spectrum.summary import Network, kinds
from selkern.study.statistics import CONFIDENCE, interval

__all__ = ["make_report", "make_rows"]

PUBLISHED = 1.04
"""Exponent of mouse V1 under natural images."""


def make_rows(measured: Measurement, networks: Sequence[Network]) -> list[dict[str, Any]]:
    """The recording, and each layer of each network with its exponent on the same ranks."""
    fit = measured.fit
    rows: list[dict[str, Any]] = [
        {
            "of": "recording",
            "exponent": float(fit.exponent),
            "standard error": measured.standard_error if len(measured.halves) > 1 else None,
            "r2": float(fit.r2),
            "first": fit.first,
            "last": fit.last,
            "stimuli": measured.stimuli,
            "neurons": measured.neurons,
            "spectrum": [float(f"{value:.6g}") for value in measured.spectrum.tolist()],
        }
    ]
    for network in networks:
        for layer, found in network.layers.items():
            row = {
                "of": "network",
                "architecture": network.architecture,
                "regularizer": network.regularizer,
                "seed": network.seed,
                "layer": layer,
                "exponent": exponent(found["spectrum"], fit.first, fit.last),
                "first": fit.first,
                "last": min(fit.last, len(found["spectrum"])),
            }
            rows.append(row)
    return rows


def make_report(
    name: str, measured: Measurement, networks: Sequence[Network], *, shuffles: int
) -> Report:
    """Put the recording's exponent beside those of the networks."""
    fit = measured.fit
    return Report(
        title="A recording's cross-validated spectrum and those of networks",
        about=[
            f"Recording: {name}, {measured.stimuli} stimuli, each shown twice, and "
            f"{measured.neurons} neurons. Cross-validated PCA as Stringer et al. (2019) published "
            f"it, averaged over {shuffles} shuffles of the repeats, no mean removed; the exponent "
            f"is the slope of log |variance| over log rank, least squares with weights 1/n, on "
            f"ranks {fit.first} to {fit.last}.",
            f"Exponent {measured.exponent.text('.3f')}, r2 {float(fit.r2):.3f}. {_error(measured)}",
            *_of_networks(networks, measured),
        ],
        findings=[],
        tables=[_exponents(measured, networks)],
        figures=[Figure("recording.png", _caption(networks))],
        remarks=_remarks(measured, networks),
    )


def _error(measured: Measurement) -> str:
    if len(measured.halves) < 2:
        return "Half of the stimuli have too few ranks for an interval."
    ranks = f"ranks {measured.fit.first} to {measured.halves_last}"
    return (
        f"Its interval is 1.96 standard errors to either side, {measured.standard_error:.3f} by "
        f"the jackknife over {HALVES} random halves of the stimuli ({ranks}); it holds for other "
        "stimuli of the same kind, not for other neurons or animals."
    )


def _of_networks(networks: Sequence[Network], measured: Measurement) -> list[str]:
    if not networks:
        return []
    seeds = len({network.seed for network in networks})
    return [
        f"Networks: those of a spectrum study, {seeds} seeds; spectra of their hidden layers over "
        f"its training images, exponents on ranks {measured.fit.first} to {measured.fit.last} or "
        f"to the last that a layer has, BCa bootstrap intervals ({CONFIDENCE:.0%}) over seeds."
    ]


def _caption(networks: Sequence[Network]) -> str:
    alone = "The recording's cross-validated spectrum with its fit and 1/n"
    return f"{alone}, over the networks' spectra, mean over seeds" if networks else alone


def _exponents(measured: Measurement, networks: Sequence[Network]) -> Table:
    columns = list(dict.fromkeys(layer for network in networks for layer in network.layers))
    rows = [["recording", measured.exponent.text(".2f"), *("" for _ in columns)]]
    for kind in kinds(networks):
        of_kind = [network for network in networks if network.kind == kind]
        rows.append([", ".join(kind), "", *(_cell(of_kind, name, measured) for name in columns)])
    caption = f"Exponents on ranks {measured.fit.first} to {measured.fit.last}"
    return Table(caption, ["", "cross-validated", *columns], rows)


def _cell(networks: Sequence[Network], layer: str, measured: Measurement) -> str:
    spectra = [network.layers[layer]["spectrum"] for network in networks if layer in network.layers]
    found = [exponent(spectrum, measured.fit.first, measured.fit.last) for spectrum in spectra]
    values = [value for value in found if value is not None]
    return interval(values).text(".2f") if values else "-"


def _remarks(measured: Measurement, networks: Sequence[Network]) -> list[str]:
    value = float(measured.fit.exponent)
    remarks = [
        f"Stringer et al. found about {PUBLISHED} for mouse V1 and natural images. For stimuli of "
        "d dimensions a code is differentiable only with an exponent above 1 + 2/d; "
        + (
            f"{value:.2f} is above that from d = {2 / (value - 1):.0f} on."
            if value > 1
            else f"{value:.2f} is below that for any d."
        )
    ]
    negative = int((measured.spectrum[measured.fit.first - 1 : measured.fit.last] < 0).sum())
    if negative:
        remarks.append(
            f"{negative} of the {measured.fit.last - measured.fit.first + 1} values that are "
            "fitted are negative, and count by their magnitude as published: noise pulls the "
            "exponent there, and a smaller --last leaves it out."
        )
    if networks:
        remarks.append(
            "Spectra of networks are those of their covariance, without noise and with the mean "
            "removed, over other stimuli than the recording's: exponents can be compared, "
            "variances cannot."
        )
    return remarks
