"""Import paths, written ``package.module:Name``."""

from __future__ import annotations

import functools
import importlib
from typing import Any


def resolve_import_path(path: str) -> Any:
    """Import the object that an import path names.

    Args:
        path: ``"package.module:Name"``; the name may be dotted.

    Raises:
        ImportError: if the module does not exist; importing it may raise other errors.
        AttributeError: if the module has no such name.
    """
    module, _, name = path.partition(":")
    return functools.reduce(getattr, name.split("."), importlib.import_module(module))
