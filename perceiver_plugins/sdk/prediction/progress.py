"""Progress reports: a bar on a terminal, otherwise lines at growing intervals."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

from perceiver_registry.progress import ProgressLines

T = TypeVar("T")


def track_progress(items: Iterable[T], total: int | None, label: str) -> Iterator[T]:
    """Yield items and report progress on standard error: with a bar on a terminal, otherwise with lines.

    Args:
        items: the items to iterate.
        total: number of items; None or 0: unknown.
        label: name of the task, such as "Predicting".
    """
    if sys.stderr.isatty():
        hidden = total is not None and total == 1
        yield from track(items, label, total or None, console=Console(stderr=True), transient=True, disable=hidden)
        return
    lines = ProgressLines("batches")
    for done, item in enumerate(items, start=1):
        yield item
        line = lines.line(done, total)
        if line is not None:
            print(f"{label}: {line}", file=sys.stderr, flush=True)
