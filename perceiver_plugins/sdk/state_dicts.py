"""Parameter names in two implementations of a model, as pairs (our name, their name)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

Pairs = Iterator[tuple[str, str]]


def module_pairs(ours: str, theirs: str, names: Iterable[str] = ("weight", "bias")) -> Pairs:
    """Return the pairs of a module's parameters."""
    for name in names:
        yield f"{ours}.{name}", f"{theirs}.{name}"
