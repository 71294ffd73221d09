"""Data modules chosen by the path of the user's own data (``--data=PATH``)."""

from __future__ import annotations

import glob
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import PurePath

from perceiver_cli.command_line import CommandLine
from perceiver_cli.layers import ConfigLayer, layer_with, merge_layers, values_of_spec
from perceiver_cli.model_layers import default_layers
from perceiver_cli.values import NAME_KEYS, name_of
from perceiver_registry import DataSpec, Entry, TaskSpec, UserError, registry

FOLDER = "/"
"""Suffix of folders in ``DataSpec.path_suffixes``."""

FILE_SUFFIX = re.compile(r"\.(txt|json|gz|xz|bz2|zst)$", re.IGNORECASE)
"""Suffixes that mark a path, besides those in specs: other text formats, and compression."""


def resolve_data_path(
    task: Entry[TaskSpec], below: Sequence[ConfigLayer], user: Sequence[ConfigLayer], line: CommandLine
) -> list[ConfigLayer]:
    """Replace a path given as ``--data`` by the data module that reads it, with the path as its option.

    Args:
        task: the task.
        below: the layer of the checkpoint, if any.
        user: the layers of config files and of names on the command line, lowest first.
        line: the command line.

    Returns:
        The user's layers, with the data module instead of the path.

    Raises:
        UserError: if the path does not exist, if not exactly one data module reads it, or if a flag sets the option.
    """
    name = name_of(merge_layers(user), "data")
    if name is None or registry().find("data", name) is not None or not _is_path(name):
        return [*user]
    chosen, path = layer_with(user, "data.name"), os.path.expanduser(name)
    flag = f"{chosen.locate('data')}={name}"
    if not (os.path.exists(path) or glob.glob(path)):
        raise UserError(f"{flag}: not found (relative to {os.getcwd()})")
    candidates = list(_modules_of_paths(task, below, user))
    fitting = _of_encoder([entry for entry in candidates if _reads(entry.spec, path)], user)
    if not fitting:
        known = "; ".join(
            f"{registry().short_name(entry)} reads {_describe_suffixes(entry.spec)}" for entry in candidates
        )
        raise UserError(
            f"{flag}: no data module of task {task.name!r} and its model reads it ({known or 'perceiver list-data'})"
        )
    if len(fitting) > 1:
        examples = " or ".join(
            f"--data={registry().short_name(entry)} {shlex.quote(f'--data.{entry.spec.path_option}={path}')}"
            for entry in fitting
        )
        raise UserError(f"{flag}: several data modules read it (write {examples})")
    option = fitting[0].spec.path_option
    if line.has(f"data.{option}") or chosen.values["data"].get(option) is not None:
        raise UserError(f"{flag} and --data.{option}: both name the data (give one of the two)")
    named = {**chosen.values["data"], NAME_KEYS["data"]: registry().short_name(fitting[0]), option: path}
    resolved = ConfigLayer(chosen.source, {**chosen.values, "data": named}, chosen.lines)
    return [resolved if layer is chosen else layer for layer in user]


def _of_encoder(fitting: list[Entry[DataSpec]], user: Sequence[ConfigLayer]) -> list[Entry[DataSpec]]:
    """Select the data modules of the plugin of the chosen input adapter, which are made for it, if there are any."""
    chosen = name_of(merge_layers(user), "model.encoder")
    encoder = registry().find("input", chosen) if chosen else None
    own = [entry for entry in fitting if encoder is not None and entry.plugin == encoder.plugin]
    return own or fitting


def _is_path(name: str) -> bool:
    """Return whether a name is a file or folder, or looks like a path."""
    if os.path.exists(name) or not {*"/~"}.isdisjoint(name) or glob.has_magic(name) or FILE_SUFFIX.search(name):
        return True
    return any(PurePath(name).suffix.lower() in entry.spec.path_suffixes for entry in registry().entries("data"))


def _modules_of_paths(
    task: Entry[TaskSpec], below: Sequence[ConfigLayer], user: Sequence[ConfigLayer]
) -> Iterator[Entry[DataSpec]]:
    """Yield the data modules with a path option that serve a task and its model.

    The model's input adapter is the chosen one, else the data module's default, else the task's.
    """
    of_task, *others = default_layers(task, [*below, *user])
    chosen = name_of(merge_layers([*others, *below, *user]), "model.encoder")
    for entry in registry().entries("data"):
        if entry.spec.path_option is None or not entry.spec.serves(task.name):
            continue
        own = name_of(values_of_spec(entry, entry.spec.defaults_for(task.name)), "model.encoder")
        encoder = chosen or own or name_of(of_task.values, "model.encoder")
        if encoder is None or entry.spec.feeds(registry().get("input", encoder).spec):
            yield entry


def _reads(spec: DataSpec, path: str) -> bool:
    """Return whether a data module reads a path, by its suffix before that of compression, if any."""
    suffixes = {FOLDER} if os.path.isdir(path) else {suffix.lower() for suffix in PurePath(path).suffixes[-2:]}
    return not spec.path_suffixes or not suffixes.isdisjoint(spec.path_suffixes)


def _describe_suffixes(spec: DataSpec) -> str:
    return ", ".join("folders" if suffix == FOLDER else suffix for suffix in spec.path_suffixes)
