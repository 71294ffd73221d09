"""Names of parameters in two implementations of a model. A pair is the name here and the name there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

Pairs = Iterator[tuple[str, str]]


def module_pairs(ours: str, theirs: str, names: Iterable[str] = ("weight", "bias")) -> Pairs:
    """Pairs of a module: of its parameters ``names``."""
    for name in names:
        yield f"{ours}.{name}", f"{theirs}.{name}"
