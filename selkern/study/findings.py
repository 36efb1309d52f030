"""What a paper found, what was measured here, and whether the two agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from selkern.study.statistics import CONFIDENCE, LEAST_VALUES, Interval

__all__ = ["AGREES", "CANNOT_BE_TOLD", "DISAGREES", "Finding", "findings_table", "untrained"]

LEARNED = 0.25
"""Accuracy below which a network has learned too little to be compared."""
AGREES, DISAGREES, CANNOT_BE_TOLD = "agrees", "disagrees", "cannot be told"


@dataclass(frozen=True)
class Finding:
    """One finding of a paper against one number with its interval over seeds.

    The number agrees where its whole interval lies on the side of ``threshold`` that the paper
    says, disagrees where it lies on the other, and cannot be told where it holds the threshold,
    where there are too few seeds for an interval, or where there is a reason that it cannot.
    """

    claim: str
    """What the paper found."""
    measure: str
    """What the number is."""
    value: Interval | None
    """None where it could not be measured."""
    is_above: bool
    """Whether the paper's finding is a value above the threshold."""
    threshold: float = 0.0
    form: str = "+.2f"
    reason: str = ""
    """Why it cannot be told, whatever the number is."""

    @property
    def verdict(self) -> str:
        """Whether what was measured agrees with the paper."""
        value = self.value
        if self.reason or value is None or value.low is None or value.high is None:
            return CANNOT_BE_TOLD
        is_above, is_below = value.low > self.threshold, value.high < self.threshold
        if not is_above and not is_below:
            return CANNOT_BE_TOLD
        return AGREES if is_above is self.is_above else DISAGREES

    @property
    def text(self) -> str:
        """The number with its interval."""
        return "-" if self.value is None else self.value.text(self.form)

    @property
    def explanation(self) -> str:
        """Why there is no interval, where there is none."""
        if self.reason or self.value is None:
            return self.reason
        if self.value.count == 0:
            return "it could not be measured in any seed"
        if self.value.low is None:
            return f"{self.value.count} of at least {LEAST_VALUES} seeds"
        return ""

    def as_data(self) -> dict[str, Any]:
        """The finding as JSON."""
        value = self.value
        return {
            "claim": self.claim,
            "measure": self.measure,
            "expected": f"{'above' if self.is_above else 'below'} {self.threshold:g}",
            "value": self.text,
            "mean": None if value is None or not value.count else value.mean,
            "interval": None if value is None else [value.low, value.high],
            "seeds": None if value is None else value.count,
            "verdict": self.verdict,
            "reason": self.explanation,
        }


def untrained(accuracies: Sequence[float]) -> str:
    """Say how many of the networks that are compared have not learned the task, if any."""
    failed = sum(accuracy < LEARNED for accuracy in accuracies)
    if failed == 0:
        return ""
    return f"{failed} of {len(accuracies)} networks have an accuracy below {LEARNED:.0%}"


def findings_table(findings: Sequence[Finding]) -> str:
    """A Markdown table of findings."""
    lines = [
        f"| the paper | measured here | expected | value [{CONFIDENCE:.0%} interval] | verdict |",
        "| --- | --- | --- | ---: | --- |",
    ]
    for finding in findings:
        expected = f"{'above' if finding.is_above else 'below'} {finding.threshold:g}"
        verdict = f"**{finding.verdict}**"
        if finding.explanation:
            verdict = f"{verdict}: {finding.explanation}"
        cells = (finding.claim, finding.measure, expected, finding.text, verdict)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
