"""The report on a recording."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from selkern.study.recording.measure import HALVES, Measurement
from selkern.study.report import Figure, Report, Table
from selkern.study.spectrum.study import exponent
from selkern.study.spectrum.summary import Network, kinds
from selkern.study.statistics import CONFIDENCE, Interval, interval

__all__ = ["differentiable_from", "doubts", "make_report", "make_rows", "tell_dimensions"]

PUBLISHED = 1.04
"""Exponent of mouse V1 under natural images."""
LEAST_R2 = 0.8
"""Of a fit that dimensions are told from."""
MOST_NEGATIVE = 0.1
"""Share of fitted values that may be negative in such a fit."""


def make_rows(measured: Measurement, networks: Sequence[Network]) -> list[dict[str, Any]]:
    """The recording, and each layer of each network, both with exponents on the same ranks."""
    fit = measured.fit
    error = measured.standard_error(fit.last)
    rows: list[dict[str, Any]] = [
        {
            "of": "recording",
            "exponent": float(fit.exponent),
            "standard error": None if math.isnan(error) else error,
            "r2": float(fit.r2),
            "reliable share": measured.reliable_share,
            "negative values": measured.negative,
            "first": fit.first,
            "last": fit.last,
            "stimuli": measured.stimuli,
            "neurons": measured.neurons,
            "spectrum": [float(f"{value:.6g}") for value in measured.spectrum.tolist()],
        }
    ]
    for network in networks:
        for layer, found in network.layers.items():
            # Ranks at which a layer has no variance are not fitted.
            last = sum(value != 0 for value in found["spectrum"][: fit.last])
            row = {
                "of": "network",
                "architecture": network.architecture,
                "regularizer": network.regularizer,
                "seed": network.seed,
                "layer": layer,
                "exponent": exponent(found["spectrum"], fit.first, fit.last),
                "recording's exponent": (
                    measured.exponent_up_to(last).mean if last > fit.first else None
                ),
                "first": fit.first,
                "last": last,
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
            f"The repeats share {measured.reliable_share:.1%} of the variance over stimuli: the "
            "sum of their cross-validated variances about the mean, over the mean total variance "
            "of the two. The interval does not know how noise pulls the exponent: in simulations "
            "of 600 stimuli and 1000 neurons with an exponent of 1.5, it came out as 1.3 where "
            "they shared 60%, 1.1 at 30% and 0.9 at 10%.",
            *_of_networks(networks),
        ],
        findings=[],
        tables=[_recording(measured), _exponents(measured, networks)],
        figures=[Figure("recording.png", _caption(networks))],
        remarks=_remarks(measured, networks),
    )


def _error(measured: Measurement) -> str:
    fit = measured.fit
    if len(measured.half_spectra) < 2:
        return "Half of the stimuli have too few ranks for an interval."
    return (
        "Its interval is 1.96 standard errors to either side, "
        f"{measured.standard_error(fit.last):.3f} by the jackknife over {HALVES} random halves of "
        f"the stimuli (ranks {fit.first} to {measured.halves_last}), which in simulations "
        "was from a fifth too small to a third too large; it holds for other stimuli of the same "
        "kind, not for other neurons or animals."
    )


def _of_networks(networks: Sequence[Network]) -> list[str]:
    if not networks:
        return []
    seeds = len({network.seed for network in networks})
    return [
        f"Networks: those of a spectrum study, {seeds} seeds; spectra of their hidden layers over "
        "its training images, each fitted on the ranks that the layer and the recording's fit both "
        "have, but for those at which the layer has no variance; BCa bootstrap intervals "
        f"({CONFIDENCE:.0%}) over seeds."
    ]


def _caption(networks: Sequence[Network]) -> str:
    alone = "The recording's cross-validated spectrum with its fit and 1/n"
    return f"{alone}, over the networks' spectra, mean over seeds" if networks else alone


def _recording(measured: Measurement) -> Table:
    fit = measured.fit
    columns = ["", "reliable share", "r2", "negative values"]
    negative = f"{measured.negative} of {fit.last - fit.first + 1}"
    row = ["recording", f"{measured.reliable_share:.1%}", f"{float(fit.r2):.3f}", negative]
    return Table(f"The recording and its fit on ranks {fit.first} to {fit.last}", columns, [row])


def _exponents(measured: Measurement, networks: Sequence[Network]) -> Table:
    first = measured.fit.first
    columns = list(dict.fromkeys(c for network in networks for c in _columns(network, measured)))
    titles = [
        f"{layer}, ranks {first} to {last}" if last > first else f"{layer}, only {last} ranks"
        for layer, last in columns
    ]
    of_recording = [
        measured.exponent_up_to(last).text(".2f") if last > first else "-" for _, last in columns
    ]
    rows = [["recording", measured.exponent.text(".2f"), *of_recording]]
    for kind in kinds(networks):
        of_kind = [network for network in networks if network.kind == kind]
        cells = [_cell(of_kind, column, measured) for column in columns]
        rows.append([", ".join(kind), "", *cells])
    caption = "Exponents, all of a column on the same ranks" if networks else "Exponent"
    return Table(caption, ["", f"ranks {first} to {measured.fit.last}", *titles], rows)


def _columns(network: Network, measured: Measurement) -> list[tuple[str, int]]:
    """Each layer, and the last rank that it and the recording's fit both have."""
    return [
        (layer, min(measured.fit.last, len(found["spectrum"])))
        for layer, found in network.layers.items()
    ]


def _cell(networks: Sequence[Network], column: tuple[str, int], measured: Measurement) -> str:
    layer, last = column
    spectra = [n.layers[layer]["spectrum"] for n in networks if column in _columns(n, measured)]
    if not spectra:
        return ""
    found = [exponent(spectrum, measured.fit.first, last) for spectrum in spectra]
    values = [value for value in found if value is not None]
    return interval(values).text(".2f") if values else "-"


def differentiable_from(exponent: float) -> int | None:
    """The smallest whole d with ``exponent > 1 + 2/d``, None where there is none.

    An exponent that is 1 + 2/d but for rounding is not above it.
    """
    if exponent <= 1:
        return None
    return math.floor(round(2 / (exponent - 1), 9)) + 1


def tell_dimensions(found: Interval) -> str:
    """For which d an exponent's whole interval is above ``1 + 2/d``, and for which none of it."""
    text = found.text(".3f")
    if found.low is None or found.high is None:
        alone = differentiable_from(found.mean)
        which = "not above that for any d" if alone is None else f"above that from d = {alone} on"
        return f"{text}, which has no interval, is {which}."
    whole, part = differentiable_from(found.low), differentiable_from(found.high)
    if part is None:
        return f"The whole of {text} is not above that for any d."
    none = f" None of it is above up to d = {part - 1}." if part > 1 else ""
    if whole is None:
        return f"{text} holds 1, which is not above that for any d: it cannot be told.{none}"
    return f"The whole of {text} is above that from d = {whole} on.{none}"


def doubts(measured: Measurement) -> list[str]:
    """Why a fit is too bad to tell anything from its exponent."""
    fit, found = measured.fit, []
    r2, count = float(fit.r2), fit.last - fit.first + 1
    if not r2 >= LEAST_R2:
        found.append(f"its r2 is {r2:.3f}, below {LEAST_R2}")
    if measured.negative > MOST_NEGATIVE * count:
        share = f"{measured.negative} of the {count} fitted values are negative"
        found.append(f"{share}, more than {MOST_NEGATIVE:.0%}")
    return found


def _remarks(measured: Measurement, networks: Sequence[Network]) -> list[str]:
    fit = measured.fit
    published = f"Stringer et al. found about {PUBLISHED} for mouse V1 and natural images."
    reasons = doubts(measured)
    if reasons:
        remarks = [
            f"The spectrum follows no power law on ranks {fit.first} to {fit.last}: "
            f"{' and '.join(reasons)}. The exponent and its interval are not to be relied on, and "
            f"nothing is told about dimensions from them. {published}"
        ]
    else:
        remarks = [
            f"{published} For stimuli of d dimensions a code is differentiable only with an "
            f"exponent above 1 + 2/d. {tell_dimensions(measured.exponent)}"
        ]
    if measured.negative:
        remarks.append(
            f"{measured.negative} of the {fit.last - fit.first + 1} values that are fitted are "
            "negative, and count by their magnitude as published: noise pulls the exponent there, "
            "and a smaller --last leaves it out."
        )
    if networks:
        remarks.append(
            "Spectra of networks are those of their covariance, without noise and with the mean "
            "removed, over other stimuli than the recording's: exponents of one column can be "
            "compared, variances cannot."
        )
    return remarks
