"""Tables for people."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Mapping

from rich.console import Console
from rich.table import Table

UNPRINTABLE = "\N{REPLACEMENT CHARACTER}"
"""Stands in tables for what a terminal would not show, or obey."""


def print_csv(rows: Iterable[Mapping[str, str]]) -> None:
    """Prints rows that have the same keys as comma-separated values, with a line of titles."""
    rows = list(rows)
    writer = csv.DictWriter(sys.stdout, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    if rows:
        writer.writeheader()
    writer.writerows(rows)


def print_table(rows: Iterable[Mapping[str, str]], title: str | None = None) -> None:
    """Prints rows that have the same keys, which are the columns' titles."""
    rows = list(rows)
    if not rows:
        return
    table = Table(*rows[0], title=title, title_justify="left", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*map(_cell, row.values()))
    console = Console(markup=False, highlight=False, soft_wrap=False)
    if not console.is_terminal:  # a pipe has no width to fit into
        console = Console(markup=False, highlight=False, width=240)
    console.print(table)


def _cell(text: str) -> str:
    """``text`` in one line, with nothing that a terminal would obey."""
    return "".join(char if char.isprintable() else UNPRINTABLE for char in " ".join(text.split()))
