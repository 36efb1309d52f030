"""The findings of Leavitt & Morcos, each against a number with its interval over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

from selkern.study.findings import Finding, untrained
from selkern.study.measures import FRACTIONS
from selkern.study.selectivity.summary import (
    Network,
    Value,
    alpha_text,
    correlations,
    differences,
    over_seeds,
    slope_differences,
)
from selkern.study.statistics import Interval, interval

__all__ = ["MAIN", "make_findings"]

MAIN = 2.0
"""The paper's main comparisons are at alpha = -2, 0 and +2; correlations are between these."""

FALL_IN_SELECTIVITY = 2.5
"""At no cost in accuracy, of CIFAR-10."""
NO_COST, SMALL_COST = 1.0, 3.0
"""In percentage points: what an interval must exclude to count as no cost, and as about 2."""
ABOUT_ZERO = 0.05
"""What counts as a selectivity of about 0."""
RISE_IN_ACCURACY = 2.0
"""With lower selectivity on Tiny ImageNet, in percentage points."""
TINY_IMAGENET_CLASSES = 200

_CORRUPTIONS = "lower selectivity is more robust to corruptions"
_ATTACKS = "higher selectivity is more robust to {}"
_DIMENSIONS = "lower selectivity raises the dimensionality of the change"

selectivity: Value = attrgetter("selectivity")
clean: Value = attrgetter("clean")
corrupted: Value = attrgetter("corrupted")
fgsm: Value = attrgetter("fgsm")
pgd: Value = attrgetter("pgd")


def corruption_dimensionality(network: Network) -> float:
    """For 95 % of the variance."""
    return network.corruption_dimensionality[FRACTIONS.index(0.95)]


def attack_dimensionality(network: Network) -> float:
    """For 95 % of the variance."""
    return network.attack_dimensionality[FRACTIONS.index(0.95)]


def make_findings(networks: Sequence[Network], num_classes: int) -> list[Finding]:
    """Hold every finding against what was measured."""
    main = [network for network in networks if abs(network.alpha) <= MAIN]
    return [
        *_of_corruptions(main),
        *_of_attacks(main),
        *_of_dimensionality(main),
        _fall_at_no_cost(networks),
        _fall_to_zero(networks),
        _rise_in_accuracy(networks, num_classes),
    ]


def _of_corruptions(main: Sequence[Network]) -> list[Finding]:
    return [
        _correlation(_CORRUPTIONS, main, corrupted, "accuracy under corruptions", is_above=False),
        _difference(_CORRUPTIONS, main, -MAIN, 0.0, corrupted, "accuracy under corruptions"),
        _difference(_CORRUPTIONS, main, 0.0, MAIN, corrupted, "accuracy under corruptions"),
    ]


def _of_attacks(main: Sequence[Network]) -> list[Finding]:
    findings = []
    for name, value in (("FGSM", fgsm), ("PGD", pgd)):
        claim, what = _ATTACKS.format(name), f"accuracy under {name}"
        findings += [
            _correlation(claim, main, value, what, is_above=True),
            _difference(claim, main, MAIN, 0.0, value, what),
            _difference(claim, main, 0.0, -MAIN, value, what),
        ]
    return findings


def _of_dimensionality(main: Sequence[Network]) -> list[Finding]:
    of_corruptions, of_attacks = corruption_dimensionality, attack_dimensionality
    what = "dimensionality (95 %) of the change by {}"
    return [
        _correlation(
            f"{_DIMENSIONS} that corruptions cause",
            main,
            of_corruptions,
            what.format("corruptions"),
            is_above=False,
        ),
        _correlation(
            f"{_DIMENSIONS} that attacks cause",
            main,
            of_attacks,
            what.format("attacks"),
            is_above=False,
        ),
        Finding(
            f"{_DIMENSIONS} clearly more for attacks than for corruptions",
            "slope of dimensionality (95 %) over SI, attacks minus corruptions, within a seed",
            slope_differences(main, selectivity, of_attacks, of_corruptions),
            is_above=False,
            form="+.3f",
        ),
    ]


def _correlation(
    claim: str, main: Sequence[Network], value: Value, what: str, *, is_above: bool
) -> Finding:
    strengths = {network.alpha for network in main}
    measure = f"rank correlation of measured SI and {what} over {len(strengths)} strengths"
    measured = correlations(main, selectivity, value)
    return Finding(claim, measure, measured, is_above, reason=_untrained(main))


def _difference(
    claim: str, main: Sequence[Network], alpha: float, base: float, value: Value, what: str
) -> Finding:
    measure = (
        f"{what} at alpha = {alpha_text(alpha)} minus at {alpha_text(base)}, percentage points"
    )
    measured = differences(main, alpha, base, lambda network: 100 * value(network))
    compared = [network for network in main if network.alpha in (alpha, base)]
    reason = _untrained(compared) or _did_not_move(compared, alpha, base)
    return Finding(claim, measure, measured, is_above=True, reason=reason)


def _untrained(networks: Sequence[Network]) -> str:
    """Say which of the networks compared have not learned the task."""
    return untrained([network.clean for network in networks])


def _did_not_move(networks: Sequence[Network], alpha: float, base: float) -> str:
    """Say that the regularizer did not order the selectivities as its strengths are."""
    change = differences(networks, max(alpha, base), min(alpha, base), selectivity)
    if change.count == 0:
        return f"there are no networks at alpha = {alpha_text(alpha)} and {alpha_text(base)}"
    if change.low is not None and change.low <= 0:
        return f"SI did not measurably rise with alpha: {change.text('+.3f')}"
    return ""


def _fall_at_no_cost(networks: Sequence[Network]) -> Finding:
    claim = f"selectivity can fall {FALL_IN_SELECTIVITY:g} times at no cost in accuracy (CIFAR-10)"
    alpha = _lowest_at_a_cost(networks, NO_COST)
    if alpha is None:
        measure = "SI at alpha = 0 over that at an alpha below"
        return Finding(claim, measure, None, True, FALL_IN_SELECTIVITY, reason=_too_costly(NO_COST))
    measure = f"SI at alpha = 0 over that at {alpha_text(alpha)}, {_cost_text(networks, alpha)}"
    ratios = _ratios(networks, alpha)
    reason = _untrained([network for network in networks if network.alpha in (alpha, 0.0)])
    if not reason and ratios.mean < FALL_IN_SELECTIVITY:
        reason = _not_tried(networks, alpha)
    return Finding(claim, measure, ratios, True, FALL_IN_SELECTIVITY, ".2f", reason)


def _fall_to_zero(networks: Sequence[Network]) -> Finding:
    claim = "selectivity can fall to about 0 at a cost of about 2 percentage points (CIFAR-10)"
    alpha = _lowest_at_a_cost(networks, SMALL_COST)
    if alpha is None:
        measure = "SI at an alpha below 0"
        return Finding(claim, measure, None, False, ABOUT_ZERO, reason=_too_costly(SMALL_COST))
    measure = f"SI at alpha = {alpha_text(alpha)}, {_cost_text(networks, alpha)}"
    value = over_seeds(networks, alpha, selectivity)
    reason = _untrained([network for network in networks if network.alpha in (alpha, 0.0)])
    if not reason and value.mean > ABOUT_ZERO:
        reason = _not_tried(networks, alpha)
    return Finding(claim, measure, value, False, ABOUT_ZERO, ".3f", reason)


def _not_tried(networks: Sequence[Network], alpha: float) -> str:
    """Say that a claim about what is possible is open, where no alpha further below was tried."""
    if alpha > min(network.alpha for network in networks):
        return ""
    return "no alpha that was tried lowers it so far"


def _lowest_at_a_cost(networks: Sequence[Network], most: float) -> float | None:
    """The alpha furthest below 0 that costs less accuracy, by its whole interval."""
    for alpha in sorted({network.alpha for network in networks if network.alpha < 0}):
        change = differences(networks, alpha, 0.0, lambda network: 100 * clean(network))
        if change.low is not None and change.low > -most:
            return alpha
    return None


def _cost_text(networks: Sequence[Network], alpha: float) -> str:
    change = differences(networks, alpha, 0.0, lambda network: 100 * clean(network))
    return f"where accuracy changes by {change.text('+.2f')} percentage points"


def _too_costly(most: float) -> str:
    return f"at no alpha below 0 can a cost of {most:g} percentage points or more be excluded"


def _ratios(networks: Sequence[Network], alpha: float) -> Interval:
    at = {(network.alpha, network.seed): network.selectivity for network in networks}
    seeds = [seed for strength, seed in at if strength == alpha and (0.0, seed) in at]
    return interval([at[0.0, seed] / at[alpha, seed] for seed in seeds if at[alpha, seed] > 0])


def _rise_in_accuracy(networks: Sequence[Network], num_classes: int) -> Finding:
    claim = (
        f"accuracy rises by over {RISE_IN_ACCURACY:g} percentage points with lower selectivity "
        "(Tiny ImageNet)"
    )
    below = sorted({network.alpha for network in networks if network.alpha < 0})
    if num_classes != TINY_IMAGENET_CLASSES or not below:
        measure = "accuracy at the best alpha below 0 minus at 0, percentage points"
        reason = "not Tiny ImageNet" if below else "no alpha below 0"
        return Finding(claim, measure, None, True, RISE_IN_ACCURACY, reason=reason)
    gains = {
        alpha: differences(networks, alpha, 0.0, lambda network: 100 * clean(network))
        for alpha in below
    }
    best = max(gains, key=lambda alpha: gains[alpha].mean)
    measure = (
        f"accuracy at alpha = {alpha_text(best)}, the best of {len(below)} below 0 and so too "
        "favourable, minus at 0, percentage points"
    )
    return Finding(claim, measure, gains[best], True, RISE_IN_ACCURACY)
