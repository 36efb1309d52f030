"""Tables for the terminal and for Markdown."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Sequence

__all__ = ["markdown_table", "print_table"]


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: with rich where it is installed, else as aligned text."""
    if importlib.util.find_spec("rich") is None:
        print(f"\n{title}\n{_aligned(columns, rows)}")
    else:
        _print_rich(title, columns, rows)


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with its numbers to the right."""
    rule = ["---", *["---:"] * (len(columns) - 1)]
    lines = [_markdown_row(row) for row in (columns, rule, *rows)]
    return "\n".join(lines) + "\n"


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _aligned(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    table = [columns, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _print_rich(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", overflow="fold")
    for row in rows:
        # Text, because a string in brackets would be read as markup.
        table.add_row(*map(Text, row))
    # rich takes 80 columns for a pipe, which would break the rows of a log.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 160
    Console(width=width, highlight=False).print(table)
