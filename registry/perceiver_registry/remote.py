"""Detection of remote paths (``s3://bucket/file``), which are not supported."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from perceiver_registry.errors import UserError

URL = re.compile(r"\s*[A-Za-z][\w+.:-]+://")
"""Start of a URL, including chained ones (``simplecache::s3://``). One letter is not a scheme but a drive (``C:``)."""

HUB = re.compile(r"hf://(?:models/)?|https?://(?:www\.)?(?:huggingface\.co|hf\.co)/", re.IGNORECASE)
"""Start of the URL of a model on the Hugging Face hub."""

NOT_A_PATH = re.compile(
    r"(^|_)(uri|url|endpoint|address|host|hostname|proxy|proxies|init_method|names?|columns?|tags|notes|experiment)$",
    re.IGNORECASE,
)
"""Names of options whose values may be URLs: servers, and free text such as names and notes."""

DOWNLOADED = "dataset"
"""Name of the option of data modules that may download from a URL."""


def is_remote(value: object) -> bool:
    """Return whether a value is a path with a URL scheme; False for text that only begins with a URL."""
    return isinstance(value, str) and bool(URL.match(value)) and len(value.split()) == 1


def refuse_remote(option: str, value: object) -> None:
    """Check that a path is local.

    Args:
        option: the flag or option of the path, for the message.
        value: the path, or a list or mapping of paths.

    Raises:
        UserError: if it has a URL scheme. Used as a local path, it would create a folder named after the scheme.
    """
    for name, path in _named_values(option, value):
        if is_remote(path) and not _accepts_url(name.rpartition(".")[2], path):
            raise UserError(f"{name}: remote paths are not supported, got {path.strip()} ({_suggestion(path)})")


def _accepts_url(option: str, path: str) -> bool:
    is_web = path.strip().lower().startswith(("http://", "https://", "ftp://"))
    return bool(NOT_A_PATH.search(option)) or (option.lstrip("-") == DOWNLOADED and is_web)


def _named_values(name: str, value: object) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _named_values(f"{name}.{key}".lstrip("."), each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _named_values(name, each)
    else:
        yield name, value


def _suggestion(path: str) -> str:
    path = path.strip()
    hub = HUB.match(path)
    if hub:
        return f"use the hub id: {path[hub.end() :] or 'owner/name'}"
    if path.lower().startswith(("file:", "local:")):
        return f"use the path: {path.partition('://')[2]}"
    return "copy or mount it and give the local path"
