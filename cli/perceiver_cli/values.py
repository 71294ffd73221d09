"""Values of a run as nested dicts with sections that are selected by name."""

from __future__ import annotations

import copy
from collections.abc import Container, Mapping
from typing import Any

Values = dict[str, Any]

NAME_KEYS = {
    "task": "name",
    "model": "name",
    "model.encoder": "adapter",
    "model.decoder": "adapter",
    "data": "name",
    "optimizer": "name",
    "lr_scheduler": "name",
}
"""Key of the name in each section that is selected by name."""

KINDS = {"task": "task", "model": "model", "model.encoder": "input", "model.decoder": "output", "data": "data"}
"""Kind of registered object, by the section that selects it."""

ARCHITECTURE = "model.architecture"
"""Option that names the architecture, which decides which options the sections of the model have."""

OF_ANY_ARCHITECTURE = ("architecture", "name", "encoder", "decoder", "params")
"""Keys of the section ``model`` that every architecture has."""

NONE = ("none", "null")
"""Values of flags that mean null."""


class Replacement(dict[str, Any]):
    """Values that replace a section instead of being merged into it."""


def merge(lower: Mapping[str, Any], upper: Mapping[str, Any], section: str = "") -> Values:
    """Merge two nested values; a section with another name in ``upper`` discards the options in ``lower``.

    Another architecture in ``upper`` discards the options of the model that only some architectures have.

    Args:
        lower: nested values.
        upper: nested values, which take precedence.
        section: dotted name of the section that both are.
    """
    name_key = NAME_KEYS.get(section)
    if isinstance(upper, Replacement):
        return copy.deepcopy(dict(upper))
    if name_key is not None and name_key in upper and section != "model":
        name = upper[name_key]
        if name is None or lower.get(name_key) not in (None, name):
            return copy.deepcopy(dict(upper))
    merged = copy.deepcopy(dict(lower))
    if section == "model" and _names_another_architecture(lower, upper):
        merged = {key: value for key, value in merged.items() if key in OF_ANY_ARCHITECTURE}
    for key, value in upper.items():
        if isinstance(value, Mapping):
            below = merged.get(key)
            merged[key] = merge(below if isinstance(below, Mapping) else {}, value, f"{section}.{key}".lstrip("."))
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def _names_another_architecture(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> bool:
    names = [values.get("architecture") for values in (lower, upper)]
    return None not in names and names[0] != names[1]


def nest(flat: Mapping[str, Any]) -> Values:
    """Nest values by dotted name; the name of a section sets its name key."""
    values: Values = {}
    for dotted, value in flat.items():
        *path, key = dotted.split(".")
        if dotted in NAME_KEYS or f"model.{dotted}" in NAME_KEYS:
            path, key = [*path, key], NAME_KEYS.get(dotted) or NAME_KEYS[f"model.{dotted}"]
            value = None if value in NONE else value
        node = values
        for part in path:
            node = node.setdefault(part, {})
        node[key] = value
    return values


def flatten(values: Mapping[str, Any], whole: Container[str] = (), prefix: str = "") -> Values:
    """Flatten nested values to values by dotted name.

    Args:
        values: the nested values.
        whole: dotted names of mappings that are values, which are kept.
        prefix: prefix of all dotted names.
    """
    flat: Values = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value and name not in whole:
            flat.update(flatten(value, whole, f"{name}."))
        else:
            flat[name] = value
    return flat


def name_of(values: Mapping[str, Any], section: str) -> str | None:
    """Return the name that a section has in nested values, or None."""
    for key in section.split("."):
        values = values.get(key) or {}
    return values.get(NAME_KEYS[section])


def architecture_of(values: Mapping[str, Any]) -> str | None:
    """Return the name of the architecture in nested values, or None."""
    return (values.get("model") or {}).get("architecture")


def normalise(values: Mapping[str, Any], section: str = "") -> Values:
    """Normalise the sections of a config file that are selected by name.

    ``data: wikipedia`` and Lightning's ``data: {class_path: ..., init_args: {...}}`` become ``data: {name: ...}``.
    """
    normal: Values = {}
    for key, value in values.items():
        child = f"{section}.{key}".lstrip(".")
        name_key = NAME_KEYS.get(child)
        if name_key is None:
            normal[key] = value
            continue
        if isinstance(value, str):
            value = {name_key: value}
        value = normalise(value or {name_key: None}, child)
        if "class_path" in value:
            value = {name_key: value.pop("class_path"), **(value.pop("init_args", None) or {}), **value}
        normal[key] = value
    return normal
