"""Names in flags and config files that YAML parses as booleans, numbers or dates: no, yes, on, 1, 2024-01-01."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml

from perceiver_cli.layers import ConfigLayer
from perceiver_registry import UserError
from perceiver_registry.option_types import spell


def quote_names(text: str, hint: Any) -> str:
    """Quote the items of a list of strings: ``--data.label_names=[no,yes]`` names two classes.

    Args:
        text: the value of a flag.
        hint: the flag's type.

    Returns:
        The list with quoted items, or the unchanged text if the flag does not take a list of strings.
    """
    return _quoted(text) if list[str] in _types(hint) else text


def refuse_other_scalars(layer: ConfigLayer, values: Mapping[str, Any], hints: Mapping[str, Any]) -> None:
    """Check that YAML parsed no string as another type, as in ``label_names: [no, yes]``.

    Args:
        layer: the config file.
        values: its values by dotted name.
        hints: types of the flags by dotted name.

    Raises:
        UserError: if it did; the message says to quote the value.
    """
    for name, value in values.items():
        if name not in hints or not set(_types(hints[name])) <= {str, list[str], type(None)}:
            continue
        for item in value if isinstance(value, list) else [value]:
            if not isinstance(item, str | list | dict | None):
                raise UserError(
                    f"{layer.locate(name)}: {spell(item)} is not a string in YAML (quote it, as in '1' or 'no')"
                )


def accepts_null(hint: Any) -> bool:
    """Return whether null is a value of a type, which is the case for all but numbers, strings and collections."""
    return not all((get_origin(part) or part) in (bool, int, float, str, list, tuple, dict) for part in _types(hint))


def _types(hint: Any) -> Iterator[Any]:
    """Yield the alternatives of a type; for a Literal, the types of its values."""
    if get_origin(hint) in (Union, UnionType):
        for part in get_args(hint):
            yield from _types(part)
    elif get_origin(hint) is Literal:
        yield from (type(value) for value in get_args(hint))
    else:
        yield hint


def _quoted(text: str) -> str:
    """Quote the items of a YAML list of scalars; return any other text unchanged."""
    if not text.lstrip().startswith("["):
        return text
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return text
    if not isinstance(node, yaml.SequenceNode) or not all(isinstance(item, yaml.ScalarNode) for item in node.value):
        return text
    return json.dumps([item.value for item in node.value])
