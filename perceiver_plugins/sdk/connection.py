"""Asking the Hugging Face hub, with or without a network."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlparse

import datasets
import huggingface_hub


def reachable() -> bool:
    """Whether the hub's name is known here, or a proxy is there to ask."""
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
    """
    if reachable():
        yield
        return
    switches: tuple[Any, ...] = (huggingface_hub.constants, datasets.config)
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
