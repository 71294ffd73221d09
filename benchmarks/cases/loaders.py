"""Throughput of data pipelines beside that of training."""

from __future__ import annotations

from typing import Any

from benchmarks.case import Case, Contender, Options


def contenders(options: Options) -> list[Contender]:
    return [Contender("", f"{__name__}:measure")]


def measure(options: Options) -> list[dict[str, Any]]:
    """A row for each task and each kind of tokenising."""
    from benchmarks import loaders

    return loaders.measure(threads=options.threads, quick=options.quick)


CASES = [
    Case(
        "loaders",
        "Data beside training",
        "Examples a second that the data pipeline of each task makes in one process, and that its default model "
        "trains on, on the data that comes with packages. Seconds are those of the processor.",
        rows=contenders,
        picture=None,
        memory=False,
        device="cpu",
    )
]
