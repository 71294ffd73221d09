"""Layers of configuration: values with the source that they come from, each layer winning over those below it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perceiver_cli.command_line import CommandLine
from perceiver_cli.values import KINDS, NAME_KEYS, NONE, Values, flatten, merge, name_of, nest
from perceiver_registry import AmbiguousNameError, Entry, Plugin, registry

PARAMS = ("model.params", "model.encoder.params")
"""Options that name weights to start from, which bring the model's, or the encoder's, architecture along."""

INIT_ARGS = ".init_args"
"""Part of the names of a class's options in config files, which flags do without."""


@dataclass(frozen=True)
class ConfigLayer:
    """Values of one source.

    Attributes:
        source: what messages call the source: "--config=run.yaml", "last.ckpt"; empty for flags, which name themselves.
        values: nested values.
        lines: the lines of a config file on which options are, by dotted name. None: the source is no config file.
    """

    source: str
    values: Values
    lines: Mapping[str, int] | None = None

    @property
    def is_file(self) -> bool:
        """Whether the layer is a config file."""
        return self.lines is not None

    def locate(self, name: str) -> str:
        """Name an option with its source: "--config=run.yaml, line 3: data.batch_size"."""
        if not self.source:
            return f"--{name}"
        if not self.is_file:
            return f"{self.source}: --{name}"
        return f"{self.line_of(name)}: {name}"

    def line_of(self, name: str) -> str:
        """Name the line of the source on which an option, or the innermost section around it, is."""
        lines = self.lines or {}
        parts = name.replace(INIT_ARGS, "").split(".")
        while parts and ".".join(parts) not in lines:
            parts.pop()
        return f"{self.source}, line {lines['.'.join(parts)]}" if parts else self.source


def merge_layers(layers: Iterable[ConfigLayer]) -> Values:
    """Merge the values of layers, from the lowest one up."""
    values: Values = {}
    for layer in layers:
        values = merge(values, layer.values)
    return values


def layer_with(layers: Sequence[ConfigLayer], name: str) -> ConfigLayer:
    """Return the highest layer that has an option, or a value around it or within it; without one, one of flags."""
    for layer in reversed(layers):
        if _has(layer.values, name):
            return layer
    return ConfigLayer("", {})


def _has(values: Mapping[str, Any], name: str) -> bool:
    flat = flatten(values)
    return any(key == name or key.startswith(f"{name}.") or name.startswith(f"{key}.") for key in flat)


def layer_of_names(line: CommandLine) -> ConfigLayer:
    """Return what flags choose by name, and the weights that they name."""
    given = {name: text for name in (*NAME_KEYS, *PARAMS) if (text := line.text(name)) is not None}
    values = nest({name: None if text in NONE else text for name, text in given.items()})
    use_registered_names(values)
    return ConfigLayer("", values)


def values_of_spec(entry: Entry[Any], flat: Mapping[str, Any]) -> Values:
    """Return nested values of a spec, in which names mean what the spec's own distribution registers first."""
    values = nest(flat)
    use_registered_names(values, entry.plugin)
    return values


def use_registered_names(values: Values, home: Plugin | None = None) -> None:
    """Replace the names of classes by registered names, wherever values choose by name.

    A name that several distributions claim comes with its distribution, so that equal names mean equal things.

    Args:
        values: nested values, which are changed.
        home: the plugin whose spec has the values; what it names may be missing, as long as it is not used.

    Raises:
        UnknownNameError: if nothing is registered under a name. Data modules may also be import paths of classes.
        AmbiguousNameError: if several distributions register it.
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


def _find(kind: str, name: str, home: Plugin | None) -> Entry[Any] | None:
    """The entry of a name; None if there need not be one."""
    try:
        entry = registry().find(kind, name, home)
    except AmbiguousNameError:
        if home is None:
            raise
        entry = None
    may_be_missing = home is not None or (kind == "data" and "." in name)
    return entry if entry or may_be_missing else registry().get(kind, name)  # type: ignore[call-overload]
