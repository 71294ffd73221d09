"""Checkpoints that describe themselves: what they hold, and which plugins they need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perceiver_registry.assemble import ADAPTER_KEY, config_to_dict
from perceiver_registry.errors import PluginError, UserError
from perceiver_registry.registry import NOUNS, Entry, registry

if TYPE_CHECKING:
    from perceiver_core import PerceiverConfig

KEY = "perceiver"
"""A checkpoint's description of itself lies under this key."""

FORMAT = 1
"""Version of the description's layout."""


def describe(
    task: str, config: PerceiverConfig, data: Mapping[str, Any] | None = None, run: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A checkpoint's description of itself, as plain data.

    Args:
        task: name of the task that the model was trained for.
        config: the model's configuration. ``params`` is left out: the checkpoint holds the weights.
        data: what prediction must know of the data, from the data module (its tokenizer, for instance).
        run: the run's whole configuration, from which it can be resumed.
    """
    model = config_to_dict(config.without_params())
    chosen: dict[str, Entry[Any]] = {
        "task": registry().get("task", task),
        "input": registry().get("input", model["encoder"][ADAPTER_KEY]),
        "output": registry().get("output", model["decoder"][ADAPTER_KEY]),
    }
    used = [*chosen.items(), *(("input", registry().get("input", name)) for name in _parts(model["encoder"]))]
    return {
        "format": FORMAT,
        "task": task,
        "model": model,
        "data": dict(data or {}),
        "run": dict(run or {}),
        "plugins": [
            {
                "kind": kind,
                "name": entry.name,
                "distribution": entry.plugin.distribution,
                "version": entry.plugin.version,
            }
            for kind, entry in used
        ],
    }


def _parts(encoder: Mapping[str, Any]) -> Iterator[str]:
    """Names of the adapters that an encoder's configuration is composed of, if it is."""
    for value in encoder.values():
        if isinstance(value, Mapping):
            if ADAPTER_KEY in value:
                yield value[ADAPTER_KEY]
            yield from _parts(value)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint of this project, with torch's restricted unpickler.

    Returns:
        The checkpoint; its description lies under :data:`KEY`.

    Raises:
        UserError: if the file is missing, truncated, or no checkpoint of this project.
        PluginError: if it needs something that is not installed; the message says what to install.
    """
    import torch

    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a file that is something else fails in any way
        raise UserError(f"{path}: not a readable checkpoint: it is truncated, or no checkpoint of perceiver") from error
    if not isinstance(checkpoint, dict) or KEY not in checkpoint:
        raise UserError(f"{path}: a checkpoint, but not one of perceiver: it does not describe itself")
    description = checkpoint[KEY]
    if description["format"] > FORMAT:
        raise UserError(f"{path}: written by a newer perceiver (format {description['format']}); please upgrade")
    for used in description["plugins"]:
        if registry().find(used["kind"], used["name"]) is None:
            raise PluginError(
                f"{path}: needs the {NOUNS[used['kind']]} {used['name']!r} of {used['distribution']} "
                f"{used['version']}: pip install {used['distribution']}"
            )
    return checkpoint
