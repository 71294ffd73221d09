"""Layers of configuration: values with their source. Higher layers override lower ones."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perceiver_cli.command_line import CommandLine
from perceiver_cli.values import (
    ARCHITECTURE,
    KINDS,
    NAME_KEYS,
    NONE,
    Values,
    architecture_of,
    flatten,
    merge,
    name_of,
    nest,
)
from perceiver_registry import AmbiguousNameError, Entry, Plugin, UserError, registry
from perceiver_registry.option_types import spell

PARAMS = ("model.params", "model.encoder.params")
"""Options with pretrained weights, which also set the architecture of the model or the encoder."""

INIT_ARGS = ".init_args"
"""Key of a class's options in config files, omitted in flags."""


@dataclass(frozen=True)
class ConfigLayer:
    """Values of one source.

    Attributes:
        source: name of the source in messages: "--config=run.yaml", "last.ckpt"; empty for flags.
        values: nested values.
        lines: line numbers of the options in a config file, by dotted name. None: the source is not a config file.
    """

    source: str
    values: Values
    lines: Mapping[str, int] | None = None

    @property
    def is_file(self) -> bool:
        """Return whether the source is a config file."""
        return self.lines is not None

    def locate(self, name: str) -> str:
        """Name an option with its source: "--config=run.yaml, line 3: data.batch_size"."""
        if not self.source:
            return f"--{name}"
        if not self.is_file:
            return f"{self.source}: --{name}"
        return f"{self.line_of(name)}: {name}"

    def line_of(self, name: str) -> str:
        """Name the line of an option in the source, or that of the innermost section around it."""
        lines = self.lines or {}
        parts = name.replace(INIT_ARGS, "").split(".")
        while parts and ".".join(parts) not in lines:
            parts.pop()
        return f"{self.source}, line {lines['.'.join(parts)]}" if parts else self.source


def merge_layers(layers: Iterable[ConfigLayer]) -> Values:
    """Merge the values of layers, lowest first."""
    values: Values = {}
    for layer in layers:
        values = merge(values, layer.values)
    return values


def layer_with(layers: Sequence[ConfigLayer], name: str) -> ConfigLayer:
    """Return the highest layer with a value for an option, a section of it or an option in it; else an empty layer."""
    for layer in reversed(layers):
        if _has(layer.values, name):
            return layer
    return ConfigLayer("", {})


def _has(values: Mapping[str, Any], name: str) -> bool:
    flat = flatten(values)
    return any(key == name or key.startswith(f"{name}.") or name.startswith(f"{key}.") for key in flat)


def layer_of_names(line: CommandLine) -> ConfigLayer:
    """Return the layer of names, the architecture and pretrained weights on a command line."""
    given = {name: text for name in (*NAME_KEYS, ARCHITECTURE, *PARAMS) if (text := line.text(name)) is not None}
    values = nest({name: None if text in NONE else text for name, text in given.items()})
    use_registered_names(values)
    return ConfigLayer("", values)


def values_of_spec(entry: Entry[Any], flat: Mapping[str, Any]) -> Values:
    """Return nested values of a spec, whose names refer to the spec's own distribution first."""
    values = nest(flat)
    use_registered_names(values, entry.plugin)
    return values


def use_registered_names(values: Values, home: Plugin | None = None) -> None:
    """Replace names of classes by registered names, in place.

    A name that several distributions register is qualified with its distribution, so that names can be compared.

    Args:
        values: nested values.
        home: plugin whose spec has the values; names in a spec may be unknown until they are used.

    Raises:
        UserError: if the architecture is not a string.
        UnknownNameError: if a name is not registered. Data modules may also be import paths, and paths of files or
            folders.
        AmbiguousNameError: if several distributions register a name.
    """
    for section, kind in KINDS.items():
        name = name_of(values, section)
        entry = _find(kind, name, home) if name is not None else None
        if entry is None:
            continue
        node = values
        for key in section.split("."):
            node = node[key]
        node[NAME_KEYS[section]] = registry().short_name(entry)
    architecture = architecture_of(values)
    if not isinstance(architecture, str | None):
        raise UserError(f"{ARCHITECTURE}: must be a name, got {spell(architecture)}")
    entry = _find("architecture", architecture, home) if architecture is not None else None
    if entry is not None:
        values["model"]["architecture"] = registry().short_name(entry)


def _find(kind: str, name: str, home: Plugin | None) -> Entry[Any] | None:
    """Return the entry of a name; None if it is unknown and may be."""
    try:
        entry = registry().find(kind, name, home)
    except AmbiguousNameError:
        if home is None:
            raise
        entry = None
    may_be_missing = home is not None or (kind == "data" and (not {*"./~*?["}.isdisjoint(name) or os.path.exists(name)))
    return entry if entry or may_be_missing else registry().get(kind, name)  # type: ignore[call-overload]
