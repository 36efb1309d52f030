"""The spectrum study: its arithmetic and its findings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from selkern.study.findings import AGREES, CANNOT_BE_TOLD, DISAGREES
from selkern.study.spectrum.figures import mean_spectrum
from selkern.study.spectrum.findings import make_findings
from selkern.study.spectrum.report import remarks_on_masking
from selkern.study.spectrum.study import exponent
from selkern.study.spectrum.summary import (
    Network,
    area,
    differences,
    stronger_fgsm,
)

DIGITS, MNIST, CIFAR = (1, 8, 8), (1, 28, 28), (3, 32, 32)


def test_the_area_under_a_curve_is_its_mean_by_trapezoids():
    assert area({0.0: 1.0, 0.1: 0.5, 0.3: 0.1}) == pytest.approx((0.1 * 0.75 + 0.2 * 0.3) / 0.3)


def test_exponents_are_fitted_where_there_are_two_ranks_that_are_not_0():
    law = [float(n) ** -1.5 for n in range(1, 41)]
    assert exponent(law, 12, 1000) == pytest.approx(1.5)
    assert exponent(law, 12, 30) == pytest.approx(1.5)
    assert exponent(law[:12], 12, 1000) is None
    assert exponent([*law[:12], 0.0, 0.0], 12, 1000) is None


def network(regularizer: str, seed: int, accuracies: Sequence[float], **curves) -> Network:
    """A network with these accuracies at eps 0, 0.1 and 0.2 under every perturbation."""
    curve = dict(zip((0.0, 0.1, 0.2), accuracies))
    found = {name: curves.get(name, curve) for name in ("FGSM", "PGD", "gaussian noise")}
    fallen = 1.1 if regularizer.startswith("all") else 2.0
    layers = {"hidden1": {"exponent": fallen}, "hidden2": {"exponent": fallen}}
    return Network("mlp", regularizer, seed, accuracies[0], found, layers)


def test_differences_are_between_networks_of_the_same_seed():
    networks = [
        *(network("none", seed, (1.0, 0.5, 0.125 * seed)) for seed in range(4)),
        *(network("all layers", seed, (1.0, 0.5, 0.125 * seed + 0.5)) for seed in range(1, 6)),
    ]
    # The last one of three radii counts for a quarter of the area.
    found = differences(networks, "mlp", "all layers", "none", lambda n: n.pgd)
    assert (found.mean, found.count) == (pytest.approx(0.125), 3)


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ((0.04, 0.05, 0.06, 0.04, 0.03), AGREES),
        ((-0.04, -0.05, -0.06, -0.04, -0.03), DISAGREES),
        ((0.04, -0.05, 0.06, -0.04, 0.03), CANNOT_BE_TOLD),
        ((0.04, 0.05), CANNOT_BE_TOLD),
    ],
)
def test_a_finding_is_judged_by_the_interval_over_seeds(gains, verdict):
    networks = [
        made
        for seed, gain in enumerate(gains)
        for made in (
            network("none", seed, (0.9, 0.5, 0.1)),
            network("all layers", seed, (0.9, 0.5 + gain, 0.1)),
        )
    ]
    judged = {f.measure.split(": ")[1]: f for f in make_findings(networks) if "PGD" in f.measure}
    against_none = judged["all layers minus none, percentage points"]
    assert against_none.verdict == verdict
    # A gain at the middle one of three radii counts for half of the area.
    assert against_none.value.mean == pytest.approx(100 * sum(gains) / len(gains) / 2)
    against_last = judged["all layers minus last layer, percentage points"]
    assert against_last.verdict == CANNOT_BE_TOLD
    assert against_last.reason == "there is no network with 'last layer'"


def test_without_a_spectrum_near_1_over_n_nothing_is_told():
    networks = [
        network(name, seed, (0.9, gain, 0.1))
        for seed in range(5)
        for name, gain in (("none", 0.5), ("all layers", 0.6))
    ]
    near = make_findings(networks)[0]
    assert near.verdict == AGREES
    far = [
        replace(n, layers={**n.layers, "hidden2": {"exponent": exponent}})
        if n.regularizer == "all layers"
        else n
        for n, exponent in zip(networks, 5 * [1.0, 1.6], strict=True)
    ]
    finding = make_findings(far)[0]
    assert finding.value == near.value
    assert finding.verdict == CANNOT_BE_TOLD
    assert finding.reason == (
        "the spectrum did not come near 1/n in hidden2 (1.60, without the penalty 2.00)"
    )


def test_networks_that_did_not_learn_tell_nothing():
    networks = [
        network(name, seed, (0.2 if (name, seed) == ("none", 3) else 0.9, gain, 0.1))
        for seed in range(5)
        for name, gain in (("none", 0.1), ("all layers", 0.2))
    ]
    finding = make_findings(networks)[0]
    assert finding.reason == "1 of 10 networks have an accuracy below 25%"
    assert finding.verdict == CANNOT_BE_TOLD


def test_every_difference_is_of_the_two_regularizers_that_its_finding_names():
    """All 20 differences between two of five regularizers are different numbers."""
    accuracies = {
        "none": 0.35,
        "last layer": 0.65,
        "last layer, frozen": 0.40,
        "all layers": 0.47,
        "all layers, frozen": 0.80,
    }
    flat = {
        name: {"FGSM": dict.fromkeys((0.0, 0.1), value), "PGD": dict.fromkeys((0.0, 0.1), value**2)}
        for name, value in accuracies.items()
    }
    networks = [
        network(name, seed, (value, value, value), **flat[name])
        for seed in range(5)
        for name, value in accuracies.items()
    ]
    findings = {
        finding.measure.removesuffix(", percentage points").split("radii of ")[1]: finding
        for finding in make_findings(networks)
    }
    verdicts = {
        ("all layers", "none"): AGREES,
        ("all layers, frozen", "none"): AGREES,
        ("all layers", "last layer"): DISAGREES,
        ("all layers, frozen", "last layer, frozen"): AGREES,
    }
    assert findings.keys() == {
        f"{attack}: {of} minus {base}" for attack in ("FGSM", "PGD") for of, base in verdicts
    }
    for (of, base), verdict in verdicts.items():
        for attack, power in (("FGSM", 1), ("PGD", 2)):
            finding = findings[f"{attack}: {of} minus {base}"]
            expected = 100 * (accuracies[of] ** power - accuracies[base] ** power)
            assert finding.value.mean == pytest.approx(expected)
            assert finding.verdict == verdict


def test_a_gain_against_fgsm_that_pgd_does_not_confirm_is_remarked_on():
    better = {0.0: 0.9, 0.1: 0.8, 0.2: 0.4}
    networks = [
        made
        for seed in range(5)
        for made in (
            network("none", seed, (0.9, 0.5, 0.1)),
            network("all layers", seed, (0.9, 0.5, 0.1), FGSM=better),
            network("all layers, frozen", seed, (0.9, 0.5, 0.1), FGSM=better, PGD=better),
        )
    ]
    [remark] = remarks_on_masking(make_findings(networks))
    assert "PGD: mlp, all layers minus none. A gain" in remark
    assert (
        remarks_on_masking(make_findings([n for n in networks if "frozen" in n.regularizer])) == []
    )


def test_every_finding_is_told_for_both_attacks_and_both_ways_to_take_eigenvalues():
    measures = [finding.measure for finding in make_findings([network("none", 0, (1, 1, 1))])]
    assert len(measures) == len(set(measures)) == 8
    assert sum("PGD" in measure for measure in measures) == 4
    assert sum("frozen" in measure for measure in measures) == 4


def test_networks_that_a_single_step_fools_more_are_counted():
    networks = [
        network("none", 0, (0.9, 0.5, 0.2)),
        network("none", 1, (0.9, 0.5, 0.2), FGSM={0.0: 0.9, 0.1: 0.4, 0.2: 0.1}),
        network("none", 2, (0.9, 0.5, 0.2), PGD={0.0: 0.9, 0.1: 0.2, 0.2: 0.1}),
        network("none", 3, (0.9, 0.5, 0.2), PGD={0.0: 0.9, 0.1: 0.3, 0.2: 0.0}),
    ]
    assert stronger_fgsm(networks) == (1, 4, pytest.approx(0.1))


def test_mean_spectra_are_geometric_and_end_where_a_network_has_no_variance():
    spectra = ([4.0, 2.0, 1.0, 0.5], [9.0, 1.0, 4.0, 0.0])
    networks = [
        Network("mlp", "none", seed, 1.0, {}, {"hidden1": {"spectrum": spectrum}})
        for seed, spectrum in enumerate(spectra)
    ]
    assert mean_spectrum(networks, "hidden1", 2) == pytest.approx([18**0.5, 1.0, 2**0.5])
    assert len(mean_spectrum(networks, "hidden1", 4)) == 0
