"""Plugins in local files, which are not installed."""

from __future__ import annotations

import importlib
import importlib.util
import keyword
import sys
from pathlib import Path
from types import ModuleType

from perceiver_registry.errors import PluginError


def import_file(path: str) -> ModuleType:
    """Import a file as a module of the same name, so that worker processes can import it as well.

    The file's folder is appended to ``sys.path``, last, so that its other files do not shadow installed modules.

    Args:
        path: absolute path of the file.

    Raises:
        PluginError: if the file does not exist, or its name is invalid or taken by another module.
    """
    file = Path(path)
    name = file.stem
    if not file.is_file():
        raise PluginError("no such file")
    if file.suffix != ".py" or not name.isidentifier() or keyword.iskeyword(name):
        raise PluginError("must be a Python file whose name can be imported, such as my_adapters.py")
    origin = _origin(name)
    if origin is None:
        sys.path.append(str(file.parent))
        importlib.invalidate_caches()
    elif not (Path(origin).is_file() and file.samefile(origin)):
        raise PluginError(f"a module {name!r} already exists: {origin} (rename the file)")
    return importlib.import_module(name)


def _origin(name: str) -> str | None:
    """Return the origin of a module, or None if it does not exist."""
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # a module created at runtime
        return "imported"
    if spec is None:
        return None
    return spec.origin or "a folder"
