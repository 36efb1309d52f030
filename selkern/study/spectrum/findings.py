"""The findings of Nassar et al., each against a number with its interval over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import attrgetter

from selkern.study.findings import Finding, untrained
from selkern.study.spectrum.objectives import ALL, ALL_FROZEN, LAST, LAST_FROZEN, NONE
from selkern.study.spectrum.summary import Network, differences, kinds

__all__ = ["ATTACKS", "make_findings"]

NEARER = 0.5
"""How far from 1 a penalised layer's exponent may be, next to that of a layer without penalty."""

ATTACKS = {"FGSM": attrgetter("fgsm"), "PGD": attrgetter("pgd")}

_ROBUST = "a 1/n spectrum in every hidden layer is more robust to {}"
_NOT_ENOUGH = "1/n in the last hidden layer alone is not enough: against {}, all layers are better"


def make_findings(networks: Sequence[Network]) -> list[Finding]:
    """Hold both findings against every architecture, attack and way to take eigenvalues."""
    architectures = dict.fromkeys(network.architecture for network in networks)
    return [
        finding
        for architecture in architectures
        for attack in ATTACKS
        for finding in _of_attack(networks, architecture, attack)
    ]


def _of_attack(networks: Sequence[Network], architecture: str, attack: str) -> list[Finding]:
    robust, not_enough = _ROBUST.format(attack), _NOT_ENOUGH.format(attack)
    findings = [
        _difference(robust, networks, architecture, attack, ALL, NONE),
        _difference(robust, networks, architecture, attack, ALL_FROZEN, NONE),
    ]
    if all(len(n.layers) > 1 for n in networks if n.architecture == architecture):
        findings += [
            _difference(not_enough, networks, architecture, attack, ALL, LAST),
            _difference(not_enough, networks, architecture, attack, ALL_FROZEN, LAST_FROZEN),
        ]
    return findings


def _difference(
    claim: str, networks: Sequence[Network], architecture: str, attack: str, of: str, base: str
) -> Finding:
    measure = (
        f"{architecture}, accuracy over the radii of {attack}: {of} minus {base}, percentage points"
    )
    there = {regularizer for _, regularizer in kinds(networks, architecture)}
    missing = [name for name in (of, base) if name not in there]
    if missing:
        reason = f"there is no network with {missing[0]!r}"
        return Finding(claim, measure, None, is_above=True, reason=reason)
    value = ATTACKS[attack]
    measured = differences(
        networks, architecture, of, base, lambda network: 100 * float(value(network))
    )
    compared = [network for network in networks if network.architecture == architecture]
    reason = _untrained(compared, (of, base)) or _not_reached(compared, of)
    return Finding(claim, measure, measured, is_above=True, reason=reason)


def _untrained(networks: Sequence[Network], regularizers: Sequence[str]) -> str:
    """Say which of the networks compared have not learned the task."""
    return untrained([n.clean for n in networks if n.regularizer in regularizers])


def _not_reached(networks: Sequence[Network], regularizer: str) -> str:
    """Say which hidden layers did not come near 1/n, where all were to."""
    reached, plain = _exponents(networks, regularizer), _exponents(networks, NONE)
    if not plain:
        return f"there is no network with {NONE!r} to compare exponents with"
    far = [
        f"{layer} ({reached[layer]:.2f}, without the penalty {plain[layer]:.2f})"
        for layer in plain
        if not abs(reached.get(layer, math.nan) - 1) <= NEARER * abs(plain[layer] - 1)
    ]
    return f"the spectrum did not come near 1/n in {', '.join(far)}" if far else ""


def _exponents(networks: Sequence[Network], regularizer: str) -> dict[str, float]:
    """Mean exponent of each hidden layer; NaN where one cannot be fitted."""
    found = [network.layers for network in networks if network.regularizer == regularizer]
    return {
        layer: sum(_or_nan(of[layer]["exponent"]) for of in found) / len(found)
        for layer in (found[0] if found else ())
    }


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
