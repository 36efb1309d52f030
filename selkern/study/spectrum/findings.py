"""The findings of Nassar et al., each against a number with its interval over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

from selkern.study.findings import Finding
from selkern.study.spectrum.objectives import ALL, ALL_FROZEN, LAST, LAST_FROZEN, NONE
from selkern.study.spectrum.summary import Network, differences, kinds

__all__ = ["ATTACKS", "make_findings"]

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
    return Finding(claim, measure, measured, is_above=True)
