"""Where published models lie: folders in the hub's layout, and the Hugging Face hub itself. Imports nothing heavy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from perceiver_registry.errors import UserError, surface_own_fault
from perceiver_registry.plain_data import PlainDataError, load_json, read_settings

CONFIG = "config.json"


def config_of(source: str) -> dict[str, Any]:
    """What the ``config.json`` of a published model says; nothing where there is none.

    Args:
        source: a folder in the hub's layout, or a hub id (``owner/name``). A file has no such configuration.

    Raises:
        UserError: if there is nothing at ``source``, if its configuration is damaged, or if the hub cannot be reached.
    """
    file = file_of(source, CONFIG)
    if file is None:
        return {}
    try:
        config = load_json(read_settings(file))
    except (OSError, PlainDataError) as error:
        raise UserError(f"{source}: its {CONFIG} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise UserError(f"{source}: its {CONFIG} is no configuration")
    return config


def file_of(source: str, name: str) -> Path | None:
    """A file of a published model, which is downloaded from the hub if need be; None if it has no such file.

    Args:
        source: a folder in the hub's layout, or a hub id (``owner/name``).
        name: the file's name.

    Raises:
        UserError: if there is nothing at ``source``, or if the hub cannot be reached.
    """
    place = Path(source).expanduser()
    if place.exists():
        file = place / name
        return file if file.is_file() else None
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", source):
        raise UserError(f"{source}: no such file or folder")
    return _download(source, name)


def _download(repo_id: str, name: str) -> Path | None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    from perceiver_plugins.sdk.connection import hub
    from perceiver_plugins.sdk.errors import one_line

    try:
        with hub():
            return Path(hf_hub_download(repo_id, name))
    except Exception as error:  # no network, no such repository, no right to read it
        surface_own_fault(error)
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            return None
        raise UserError(f"{repo_id}: no such folder here, and nothing from the hub: {one_line(error)}") from error
