"""The report of a study, as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from selkern.study.findings import Finding, findings_table
from selkern.study.statistics import remark_on_intervals

__all__ = ["Figure", "Report", "Table", "remarks_on_seeds"]


@dataclass(frozen=True)
class Table:
    """A table over networks; the first column names the row."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """The table as Markdown."""
        lines = [self.columns, ["---", *["---:"] * (len(self.columns) - 1)], *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"

    def as_data(self) -> dict[str, Any]:
        """The table as JSON."""
        rows = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        return {"caption": self.caption, "rows": rows}


def remarks_on_seeds(source: str, seeds: int) -> list[str]:
    """What to bear in mind of intervals over seeds, and of these images."""
    remarks = [
        remark_on_intervals(seeds),
        "Seeds vary the initial weights and the order of the images, not the images: an interval "
        "says nothing about other images.",
    ]
    if source == "digits":
        remarks.append(
            "scikit-learn's digits are small and easy, 8 x 8 and one channel: what they do not "
            "show may be there on the paper's images, and the other way round."
        )
    return remarks


@dataclass(frozen=True)
class Figure:
    """A picture beside the report."""

    file: str
    caption: str


@dataclass(frozen=True)
class Report:
    """What a study says.

    Parameters
    ----------
    title : str
        Of the page.
    about : sequence of str
        Paragraphs: what was done, to which images and networks.
    findings : sequence of Finding
        Each finding of the paper, and what was measured.
    tables, figures : sequence
        In the order in which they are shown.
    remarks : sequence of str
        What a reader must know before believing the verdicts.
    """

    title: str
    about: Sequence[str]
    findings: Sequence[Finding]
    tables: Sequence[Table]
    figures: Sequence[Figure]
    remarks: Sequence[str] = ()

    def markdown(self) -> str:
        """The report as a page."""
        parts = [f"# {self.title}\n", *(f"{paragraph}\n" for paragraph in self.about)]
        if self.findings:
            parts += ["## Findings\n", findings_table(self.findings)]
        parts += [f"- {remark}" for remark in self.remarks]
        if self.remarks:
            parts.append("")
        for table in self.tables:
            parts += [f"## {table.caption}\n", table.markdown()]
        for figure in self.figures:
            parts += [f"![{figure.caption}]({figure.file})\n", f"*{figure.caption}*\n"]
        return "\n".join(parts)

    def as_data(self) -> dict[str, Any]:
        """The report as JSON."""
        return {
            "title": self.title,
            "about": list(self.about),
            "findings": [finding.as_data() for finding in self.findings],
            "tables": [table.as_data() for table in self.tables],
            "figures": [figure.file for figure in self.figures],
            "remarks": list(self.remarks),
        }
