"""YAML and JSON from anybody: read with limits, and with errors of one line.

A few hundred bytes of YAML can expand to gigabytes, by aliases of aliases; a few thousand brackets end Python's stack.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

MAX_DEPTH = 50
"""Levels of nesting. Arbitrary: configurations have about ten, and whoever walks through 50 needs no more stack than
Python has."""

MAX_ALIASED = 10_000
"""Values that the aliases of a YAML document may expand to together. Arbitrary: more than anybody shares by hand."""

MAX_COLLECTIONS = 1_000_000
"""Lists and mappings of a document. Arbitrary: what is walked through in a second."""

MAX_BYTES = 2**24
"""Size of a file of settings. Arbitrary: three times a vocabulary of 100 000 words."""


TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep"


class PlainDataError(ValueError):
    """A document that is not what it should be, or beyond the limits. The message is one line without its name."""


def load_yaml(text: str) -> Any:
    """Read a YAML document.

    Raises:
        PlainDataError: if it is not YAML, or beyond the limits.
    """
    import yaml

    try:
        check_yaml(text)
        return yaml.safe_load(text)
    except PlainDataError:
        raise
    except (yaml.YAMLError, ValueError, TypeError, OverflowError) as error:  # values such as a 13th month
        raise PlainDataError(f"not YAML: {' '.join(str(error).split())}") from error


def check_yaml(text: str) -> None:
    """Check a YAML document against the limits, without recursion and without building it.

    Raises:
        PlainDataError: if it is beyond them.
        yaml.YAMLError: if it is not YAML.
    """
    import yaml

    sizes = _ExpandedSize()
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.AliasEvent):
            sizes.add_alias(event.anchor)
        elif isinstance(event, yaml.CollectionStartEvent):
            sizes.open_collection(event.anchor)
        elif isinstance(event, yaml.CollectionEndEvent):
            sizes.close_collection()
        elif isinstance(event, yaml.ScalarEvent):
            sizes.add_scalar(event.anchor)


class _ExpandedSize:
    """Number of values of a YAML document with its aliases expanded, counted event by event.

    Raises:
        PlainDataError: if the document is beyond the limits.
    """

    def __init__(self) -> None:
        self._by_anchor: dict[str, int] = {}
        self._open: list[tuple[str | None, int]] = []  # each open collection's anchor, and the values before it
        self._total = self._aliased = 0

    def add_alias(self, anchor: str) -> None:
        if anchor not in self._by_anchor and any(anchor == each for each, _ in self._open):
            raise PlainDataError(f"the alias *{anchor} is within what it stands for")
        size = self._by_anchor.get(anchor, 1)
        self._total += size
        self._aliased += size
        if self._aliased > MAX_ALIASED:
            raise PlainDataError(f"its aliases stand for more than {MAX_ALIASED} values")

    def open_collection(self, anchor: str | None) -> None:
        self._open.append((anchor, self._total))
        self._total += 1
        if len(self._open) > MAX_DEPTH:
            raise PlainDataError(TOO_DEEP)

    def close_collection(self) -> None:
        anchor, before = self._open.pop()
        if anchor is not None:
            self._by_anchor[anchor] = self._total - before

    def add_scalar(self, anchor: str | None) -> None:
        self._total += 1
        if anchor is not None:
            self._by_anchor[anchor] = 1


def load_json(text: str) -> Any:
    """Read a JSON document.

    Raises:
        PlainDataError: if it is not JSON, or beyond the limits.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise PlainDataError(f"not JSON ({error.msg}, line {error.lineno}, column {error.colno})") from error
    except RecursionError as error:
        raise PlainDataError(TOO_DEEP) from error
    except ValueError as error:
        raise PlainDataError("a whole number has more than 4300 digits") from error
    check_size(value)
    return value


def check_size(value: Any) -> None:
    """Check how deep plain data is nested and how large it is written out, without recursion.

    Raises:
        PlainDataError: if it is deeper than :data:`MAX_DEPTH`, as what contains itself is, or has more than
            :data:`MAX_COLLECTIONS` lists and mappings.
    """
    level: dict[int, tuple[Any, int]] = {id(value): (value, 1)}
    total = 0
    for _ in range(MAX_DEPTH):
        below: dict[int, tuple[Any, int]] = {}
        for each, times in level.values():  # what is shared is one object, which is written out several times
            for child in _collections_in(each):
                below[id(child)] = child, times + below.get(id(child), (child, 0))[1]
        if not below:
            return
        total += sum(times for _, times in below.values())
        if total > MAX_COLLECTIONS:
            raise PlainDataError(f"more than {MAX_COLLECTIONS} lists and mappings")
        level = below
    raise PlainDataError(TOO_DEEP)


def _collections_in(value: Any) -> Iterator[Any]:
    children = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return (child for child in children if isinstance(child, Mapping | list | tuple))


def read_settings(path: Path) -> str:
    """Read the text of a file of settings, which may be a pipe.

    Raises:
        PlainDataError: if it is not UTF-8, or larger than :data:`MAX_BYTES`.
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise PlainDataError(f"larger than {MAX_BYTES / 2**20:.0f} MiB, which no file of settings is")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PlainDataError(f"not UTF-8 text (byte {error.start})") from error
