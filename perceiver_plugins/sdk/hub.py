"""The Hugging Face hub, with or without a network, and folders in its layout. Imports nothing heavy."""

from __future__ import annotations

import re
import socket
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

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

    from perceiver_plugins.sdk.errors import one_line

    try:
        with hub():
            return Path(hf_hub_download(repo_id, name))
    except Exception as error:  # no network, no such repository, no right to read it
        surface_own_fault(error)
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            return None
        raise UserError(f"{repo_id}: no such folder here, and nothing from the hub: {one_line(error)}") from error


def reachable() -> bool:
    """Whether the hub's name is known here, or a proxy is there to ask."""
    import huggingface_hub

    host = urlparse(huggingface_hub.constants.ENDPOINT).hostname
    if urllib.request.getproxies() or host is None:
        return True
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        return False
    return True


@contextmanager
def hub() -> Iterator[None]:
    """Ask the hub within this context.

    Without a network, the hub's libraries are in their offline mode meanwhile: what was downloaded before is
    found, and what was not is an error at once. By themselves they would first try for most of a minute.
    Libraries that read the mode when they are imported (datasets, transformers 4) must be imported before.
    """
    import huggingface_hub

    if reachable():
        yield
        return
    modules: tuple[Any, ...] = (huggingface_hub.constants, sys.modules.get("datasets.config"))
    switches = [module for module in modules if module is not None]
    before = [switch.HF_HUB_OFFLINE for switch in switches]
    # Releases of huggingface_hub before 1.0 build the mode into the HTTP session of each thread, which they keep.
    reset_sessions = getattr(huggingface_hub.utils, "reset_sessions", lambda: None)
    try:
        for switch in switches:
            switch.HF_HUB_OFFLINE = True
        reset_sessions()
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.HF_HUB_OFFLINE = value
        reset_sessions()
