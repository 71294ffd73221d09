"""Access to the Hugging Face hub, online or offline, and to folders in its layout. Imports its libraries on use."""

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
    """Read the ``config.json`` of a published model. Returns an empty dict if it has none.

    Args:
        source: a folder in the hub's layout, or a hub id (``owner/name``). A file has no configuration.

    Raises:
        UserError: if ``source`` does not exist, if its configuration is damaged, or if the hub cannot be reached.
    """
    file = file_of(source, CONFIG)
    if file is None:
        return {}
    try:
        config = load_json(read_settings(file))
    except (OSError, PlainDataError) as error:
        raise UserError(f"{source}: its {CONFIG} cannot be read ({error})") from error
    if not isinstance(config, dict):
        raise UserError(f"{source}: its {CONFIG} is not a JSON object")
    return config


def file_of(source: str, name: str) -> Path | None:
    """Return the path of a file of a published model, downloaded if necessary; None if the model has no such file.

    Args:
        source: a folder in the hub's layout, or a hub id (``owner/name``).
        name: the file's name.

    Raises:
        UserError: if ``source`` does not exist, or if the hub cannot be reached.
    """
    folder = Path(source).expanduser()
    if folder.exists():
        file = folder / name
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
    except Exception as error:  # no network, no such repository, no access
        surface_own_fault(error)
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            return None
        raise UserError(f"{repo_id}: not a local folder, and not available from the hub ({one_line(error)})") from error


def reachable() -> bool:
    """Check whether the hub's name can be resolved, or a proxy is configured."""
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
    """Context manager for access to the hub.

    Without a network, the hub's libraries are in offline mode within this context: cached files are found, others raise
    an error at once, not after repeated timeouts. Libraries that read the mode on import (datasets, transformers 4)
    must be imported before.
    """
    import huggingface_hub

    if reachable():
        yield
        return
    modules: tuple[Any, ...] = (huggingface_hub.constants, sys.modules.get("datasets.config"))
    switches = [module for module in modules if module is not None]
    before = [switch.HF_HUB_OFFLINE for switch in switches]
    # huggingface_hub before 1.0 caches an HTTP session with the mode for each thread.
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
