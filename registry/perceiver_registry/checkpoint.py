"""Checkpoints that describe themselves: what they hold, and which plugins they need."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perceiver_registry.configs import ADAPTER_KEY, PARTS, config_to_dict, with_names
from perceiver_registry.errors import PluginError, UserError, in_one_line, surface_own_fault
from perceiver_registry.plain_data import PlainDataError, check_size
from perceiver_registry.plugins import LOCAL
from perceiver_registry.registry import NOUNS, Entry, registry

if TYPE_CHECKING:
    from perceiver_core import PerceiverConfig

KEY = "perceiver"
"""A checkpoint's description of itself lies under this key."""

FORMAT = 1
"""Version of the description's layout."""

SUFFIXES = (".ckpt", ".pt")
"""What the names of checkpoints end in."""

NOT_OURS = "{source}: a checkpoint, but not one of perceiver: it does not describe itself"
"""The message about checkpoints of other projects."""


def describe(
    task: str, config: PerceiverConfig, data: Mapping[str, Any] | None = None, run: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A checkpoint's description of itself, as plain data.

    Its names mean what the distributions under ``"plugins"`` register, whatever is installed when it is read.

    Args:
        task: name of the task that the model was trained for.
        config: the model's configuration. ``params`` is left out: the checkpoint holds the weights.
        data: what prediction must know of the data, from the data module (its tokenizer, for instance).
        run: the run's whole configuration, from which it can be resumed.
    """
    model = config_to_dict(config.without_params())
    task_entry = registry().get("task", task)
    named = [(kind, name) for part, kind in PARTS.items() for name in _adapters_in(model[part])]
    named += [("data", name) for name in [_data_of(run or {})] if name]
    found = (registry().find(kind, name) for kind, name in named)
    used: list[Entry[Any]] = [task_entry, *(entry for entry in found if entry is not None)]
    return {
        "format": FORMAT,
        "task": registry().short_name(task_entry),
        "model": model,
        "data": dict(data or {}),
        "run": dict(run or {}),
        "plugins": [
            {
                "kind": entry.kind,
                "name": entry.name,
                "distribution": entry.plugin.distribution,
                "version": entry.plugin.version,
            }
            for entry in used
        ],
    }


def _adapters_in(part: Mapping[str, Any]) -> Iterator[str]:
    """Names of the adapters in an encoder's or decoder's plain configuration: its own, and those of its parts."""
    for key, value in part.items():
        if key == ADAPTER_KEY and isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            yield from _adapters_in(value)


def _data_of(run: Mapping[str, Any]) -> str | None:
    """The name of the data module in a run's configuration."""
    data = run.get("data")
    return data.get("name") if isinstance(data, Mapping) else None


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint of this project, with torch's restricted unpickler.

    Returns:
        The checkpoint; its description lies under :data:`KEY`.

    Raises:
        UserError: if the file is missing, truncated, or no checkpoint of this project.
        PluginError: if it needs something that is not installed; the message says what to install.
    """
    checkpoint = open_checkpoint(path)
    if KEY not in checkpoint:
        raise UserError(NOT_OURS.format(source=path))
    return checkpoint | {KEY: understood(checkpoint[KEY], path)}


def open_checkpoint(path: str | Path) -> dict[str, Any]:
    """What any checkpoint holds, as far as torch's restricted unpickler reads it. The weights stay on disk until used.

    Raises:
        UserError: if the file is missing, truncated, or no checkpoint.
    """
    import torch

    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a file that is something else fails in any way
        surface_own_fault(error)
        code = re.search(r"\bGLOBAL ([\w.]+)", str(error))
        if code:
            reason = f"its pickle calls {code[1]}, and plain data is all that is ever read"
            raise UserError(f"{path}: not a readable checkpoint: {reason}") from error
        raise UserError(f"{path}: not a readable checkpoint: it is truncated, or no checkpoint of perceiver") from error
    if not isinstance(checkpoint, dict):
        raise UserError(NOT_OURS.format(source=path))
    return checkpoint


def understood(description: Any, source: str | Path) -> dict[str, Any]:
    """A description that was read, with names that mean the same now, when others may have claimed them too.

    Args:
        description: what :func:`describe` returned when it was written.
        source: where it stands, for messages.

    Raises:
        UserError: if it is damaged, or was written by a newer version of this project.
        PluginError: if it needs something that is not installed; the message says what to install.
    """
    try:
        check_size(description)
        if description["format"] > FORMAT:
            raise UserError(f"{source}: written by a newer perceiver (format {description['format']}); please upgrade")
        for used in description["plugins"]:
            if used["kind"] != "data":
                require(used, source)
        damaged = next(_damaged_entries(description), None)
        if damaged is not None:
            raise UserError(f"{source}: its description of the model is damaged: {damaged} is not of its type")
        return _with_names_of_today(description)
    except PlainDataError as error:
        raise UserError(f"{source}: its description of the model is damaged: {error}") from error
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, UserError):  # of which some are look-up errors
            raise
        raise UserError(f"{source}: its description of the model is damaged: {in_one_line(error)}") from error


NAMED_SECTIONS = ("task", "model", "data", "optimizer", "lr_scheduler")
"""Sections of a run's configuration that may hold a name."""


def _damaged_entries(description: Mapping[str, Any]) -> Iterator[str]:
    """Names of the entries that are not of their type, at whatever depth a reader relies on it."""
    for key in ("model", "data", "run"):
        if not isinstance(description[key], Mapping):
            yield key
    if not isinstance(description["task"], str):
        yield "task"
    for key in ("model", "run"):
        yield from _not_plain(description[key], key)
    for part in PARTS:
        if not isinstance(description["model"][part].get(ADAPTER_KEY), str):
            yield f"model.{part}.{ADAPTER_KEY}"
    for used in description["plugins"]:
        texts = (used[key] for key in ("kind", "name", "distribution", "version"))
        if not all(isinstance(text, str) for text in texts) or used["kind"] not in NOUNS:
            yield "plugins"
    for section in NAMED_SECTIONS:
        values = description["run"].get(section) or {}
        if not isinstance(values, Mapping) or not isinstance(values.get("name"), str | None):
            yield f"run.{section}"


def _not_plain(value: Any, name: str) -> Iterator[str]:
    """Names of the entries of nested data that YAML could not hold."""
    if isinstance(value, Mapping):
        for key, child in value.items():
            if not isinstance(key, str):
                yield name
            yield from _not_plain(child, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for child in value:
            yield from _not_plain(child, name)
    elif not isinstance(value, str | int | float | None):
        yield name


def require(used: Mapping[str, str], path: str | Path) -> None:
    """Checks that something that a checkpoint needs is there.

    Args:
        used: one of what its description lists under ``"plugins"``.
        path: the checkpoint, for the message.

    Raises:
        PluginError: if it is not; the message says what to install, or what is wrong with what is installed.
    """
    if _find(used) is not None:
        return
    distribution, version = used["distribution"], used["version"]
    needs = f"{path}: needs the {NOUNS[used['kind']]} {used['name']!r} of {distribution}"
    if version == LOCAL:
        raise PluginError(f"{needs}, a file that is not installed: give it with --plugin=PATH/{distribution}")
    installed = [loaded for loaded in registry().plugins if loaded.plugin.is_of(distribution)]
    left_out = [loaded for loaded in installed if loaded.status != "ok"]
    if left_out:
        raise PluginError(f"{needs} {version}, but {'; '.join(map(str, left_out))}")
    pip = f"pip install {distribution}" + ("" if "+" in version else f"=={version}")
    instead = f"; {distribution} {installed[0].plugin.version}, which is installed, has none" if installed else ""
    raise PluginError(f"{needs} {version}{instead}: {pip}")


def _find(used: Mapping[str, str]) -> Entry[Any] | None:
    """What is registered now of what a description lists."""
    full_name = f"{used['distribution']}:{used['name']}"
    found = registry().find(used["kind"], full_name)
    # What was tried out in a file may be installed now.
    return registry().find(used["kind"], used["name"]) if found is None and used["version"] == LOCAL else found


def _with_names_of_today(description: Mapping[str, Any]) -> dict[str, Any]:
    """A description with names that mean the same now, when others may have claimed them too."""
    today = {
        (used["kind"], written): registry().short_name(entry)
        for used in description["plugins"]
        if (entry := _find(used)) is not None
        for written in (used["name"], f"{used['distribution']}:{used['name']}")
    }

    def name(kind: str, written: str) -> str:
        return today.get((kind, written), written)

    model = dict(description["model"])
    for part, kind in PARTS.items():
        model[part] = with_names(model[part], lambda written, kind=kind: name(kind, written))  # type: ignore[misc]
    run = dict(description["run"])
    data_module = _data_of(run)
    if data_module:
        run["data"] = run["data"] | {"name": name("data", data_module)}
    return {**description, "task": name("task", description["task"]), "model": model, "run": run}
