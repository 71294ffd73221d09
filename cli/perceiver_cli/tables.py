"""Tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.console import Console
from rich.table import Table


def print_table(rows: Iterable[Mapping[str, str]], title: str | None = None) -> None:
    """Prints rows that have the same keys, which are the columns' titles."""
    rows = list(rows)
    table = Table(*(rows[0] if rows else ()), title=title, title_justify="left", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row.values())
    console = Console(markup=False, highlight=False, soft_wrap=False)
    if not console.is_terminal:  # a pipe has no width to fit into
        console = Console(markup=False, highlight=False, width=240)
    console.print(table)
