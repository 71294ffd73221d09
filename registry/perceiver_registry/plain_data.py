"""Reading of untrusted YAML and JSON, with limits and one-line errors.

A few hundred bytes of YAML can expand to gigabytes, by aliases of aliases; a few thousand brackets exceed Python's
recursion limit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

MAX_DEPTH = 50
"""Maximum nesting. Arbitrary: configurations have about ten levels, and 50 are far below Python's recursion limit."""

MAX_ALIASED = 10_000
"""Maximum number of values that the aliases of a YAML document expand to. Arbitrary: far above hand-written files."""

MAX_COLLECTIONS = 1_000_000
"""Maximum number of lists and mappings in a document. Arbitrary: traversing them takes about a second."""

MAX_BYTES = 2**24
"""Maximum size of a settings file. Arbitrary: three times a vocabulary of 100 000 words."""

TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep"


class PlainDataError(ValueError):
    """Invalid document, or one beyond the limits. The message is one line without the file's name."""


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

    counter = _YamlCounter()
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.AliasEvent):
            counter.add_alias(event.anchor)
        elif isinstance(event, yaml.CollectionStartEvent):
            counter.open_collection(event.anchor)
        elif isinstance(event, yaml.CollectionEndEvent):
            counter.close_collection()
        elif isinstance(event, yaml.ScalarEvent):
            counter.add_scalar(event.anchor)


class _YamlCounter:
    """Count the values of a YAML document with its aliases expanded, and check the limits."""

    def __init__(self) -> None:
        self.total = self.aliased = 0
        self.sizes: dict[str | None, int] = {}  # number of values below each anchor
        self.open_nodes: list[tuple[str | None, int]] = []  # anchor of each open collection, and total before it

    def add_alias(self, anchor: str | None) -> None:
        if anchor not in self.sizes and any(anchor == opened for opened, _ in self.open_nodes):
            raise PlainDataError(f"the alias *{anchor} refers to a value that contains it")
        size = self.sizes.get(anchor, 1)
        self.total, self.aliased = self.total + size, self.aliased + size
        if self.aliased > MAX_ALIASED:
            raise PlainDataError(f"its aliases expand to more than {MAX_ALIASED} values")

    def open_collection(self, anchor: str | None) -> None:
        self.open_nodes.append((anchor, self.total))
        self.total += 1
        if len(self.open_nodes) > MAX_DEPTH:
            raise PlainDataError(TOO_DEEP)

    def close_collection(self) -> None:
        anchor, before = self.open_nodes.pop()
        if anchor is not None:
            self.sizes[anchor] = self.total - before

    def add_scalar(self, anchor: str | None) -> None:
        self.total += 1
        if anchor is not None:
            self.sizes[anchor] = 1


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
    """Check the nesting and the size of plain data without recursion.

    Raises:
        PlainDataError: if it is nested deeper than :data:`MAX_DEPTH` (or contains itself), or has more than
            :data:`MAX_COLLECTIONS` lists and mappings.
    """
    level: dict[int, tuple[Any, int]] = {id(value): (value, 1)}
    total = 0
    for _ in range(MAX_DEPTH):
        below: dict[int, tuple[Any, int]] = {}
        for each, times in level.values():  # shared objects are counted each time
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
    """Read the text of a settings file, which may be a pipe.

    Raises:
        PlainDataError: if it is not UTF-8, or larger than :data:`MAX_BYTES`.
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise PlainDataError(f"larger than {MAX_BYTES / 2**20:.0f} MiB, too large for a settings file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PlainDataError(f"not UTF-8 text (byte {error.start})") from error
