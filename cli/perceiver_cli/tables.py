"""Tables on standard output."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.console import Console
from rich.table import Table

from perceiver_registry.escaping import escape_line


def print_table(rows: Iterable[Mapping[str, str]], title: str | None = None) -> None:
    """Print rows as a table; their common keys are the column titles."""
    rows = list(rows)
    if not rows:
        return
    table = Table(*map(_cell, rows[0]), title=title, title_justify="left", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*map(_cell, row.values()))
    console = Console(markup=False, highlight=False, soft_wrap=False)
    if not console.is_terminal:  # a pipe has no width
        console = Console(markup=False, highlight=False, width=240)
    console.print(table)


def _cell(text: str) -> str:
    """Format a cell as one line with control characters escaped."""
    return escape_line(" ".join(text.split()))
