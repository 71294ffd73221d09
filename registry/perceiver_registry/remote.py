"""Recognition of remote paths (``s3://bucket/file``), which are refused until they can be read and written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from perceiver_registry.errors import UserError

URL = re.compile(r"\s*[A-Za-z][\w+.:-]+://")
"""Start of a URL, chained ones (``simplecache::s3://``) included. Schemes have two letters: ``C:\\`` is a drive."""

HUB = re.compile(r"hf://(?:models/)?|https?://(?:www\.)?(?:huggingface\.co|hf\.co)/", re.IGNORECASE)
"""Start of the URL of a model at the Hugging Face hub."""

NOT_A_PATH = re.compile(
    r"(^|_)(uri|url|endpoint|address|host|hostname|proxy|proxies|init_method|names?|columns?|tags|notes|experiment)$",
    re.IGNORECASE,
)
"""Names of options whose values may be URLs: servers, and what a person calls something."""


DOWNLOADED = "dataset"
"""Name of options whose data modules download from an address."""


def is_remote(value: object) -> bool:
    """Return whether a value is a path with a URL scheme. Text that merely begins with a URL is not one."""
    return isinstance(value, str) and bool(URL.match(value)) and len(value.split()) == 1


def refuse_remote(option: str, value: object) -> None:
    """Check that a path is local.

    Args:
        option: the flag or option of the path, for the message.
        value: the path, or a list or mapping of paths.

    Raises:
        UserError: if it has a URL scheme; as a local path it would become a folder named after the scheme.
    """
    for name, path in _leaves(option, value):
        if is_remote(path) and not _may_be_url(name.rpartition(".")[2], path):
            raise UserError(f"{name}: remote paths are not supported, got {path.strip()} ({_instead(path)})")


def _may_be_url(option: str, path: str) -> bool:
    is_web = path.strip().lower().startswith(("http://", "https://", "ftp://"))
    return bool(NOT_A_PATH.search(option)) or (option.lstrip("-") == DOWNLOADED and is_web)


def _leaves(name: str, value: object) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _leaves(f"{name}.{key}".lstrip("."), each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _leaves(name, each)
    else:
        yield name, value


def _instead(path: str) -> str:
    path = path.strip()
    hub = HUB.match(path)
    if hub:
        return f"write the hub id alone: {path[hub.end() :] or 'owner/name'}"
    if path.lower().startswith(("file:", "local:")):
        return f"write the path alone: {path.partition('://')[2]}"
    return "copy or mount it and give the local path"
