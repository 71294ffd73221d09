"""Names in flags and config files that YAML takes for booleans, numbers or dates: no, yes, on, 1, 2024-01-01."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml

from perceiver_registry import UserError


def quote_names(flags: Iterable[str], hints: Mapping[str, Any]) -> list[str]:
    """Flags in which the items of each list of texts are quoted: ``--data.label_names=[no,yes]`` names two classes.

    Args:
        flags: what is left of a command line.
        hints: the types of the flags by their dotted names.
    """
    quoted: list[str] = []
    for flag in flags:
        before = quoted[-1] if quoted else ""
        name, equals, value = flag.partition("=")
        if equals and _takes_list(name, hints):
            flag = f"{name}={_quoted(value)}"
        elif not flag.startswith("-") and _takes_list(before, hints):
            flag = _quoted(flag)
        quoted.append(flag)
    return quoted


def refuse_other_scalars(where: str, values: Mapping[str, Any], hints: Mapping[str, Any]) -> None:
    """Raise an error if YAML made something else of a text: of ``label_names: [no, yes]``, say.

    Args:
        where: the file that the values are from, for the message.
        values: values by their dotted names.
        hints: the types of the flags by their dotted names.

    Raises:
        UserError: if it did; the message says to quote the text.
    """
    for name, value in values.items():
        if not set(_types(hints.get(name))) <= {str, list[str], type(None)} or name not in hints:
            continue
        for item in value if isinstance(value, list) else [value]:
            if not isinstance(item, str | list | dict | None):
                raise UserError(
                    f"{where}: {name}: {_spelled(item)} is not a text in YAML (write it in quotes, as '1' or 'no')"
                )


def _takes_list(flag: str, hints: Mapping[str, Any]) -> bool:
    return flag.startswith("--") and list[str] in _types(hints.get(flag.removeprefix("--")))


def _types(hint: Any) -> Iterator[Any]:
    """The types that a hint admits; the values of a Literal by their types."""
    if get_origin(hint) in (Union, UnionType):
        for part in get_args(hint):
            yield from _types(part)
    elif get_origin(hint) is Literal:
        yield from (type(value) for value in get_args(hint))
    else:
        yield hint


def _quoted(text: str) -> str:
    """A YAML list of scalars as the texts that were written; any other text as it is."""
    if not text.lstrip().startswith("["):
        return text
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return text
    if not isinstance(node, yaml.SequenceNode) or not all(isinstance(item, yaml.ScalarNode) for item in node.value):
        return text
    return json.dumps([item.value for item in node.value])


def _spelled(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
