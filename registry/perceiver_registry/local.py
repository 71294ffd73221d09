"""Plugins in a file that is not installed."""

from __future__ import annotations

import importlib
import importlib.util
import keyword
import sys
from pathlib import Path
from types import ModuleType

from perceiver_registry.errors import PluginError


def import_file(path: str) -> ModuleType:
    """Imports a file as the module of its name, from which worker processes import it as well.

    The file's folder comes last on the path: what is installed is never replaced by what lies beside the file.

    Args:
        path: absolute path of the file.

    Raises:
        PluginError: if there is no such file, or if it cannot have its name as a module.
    """
    file = Path(path)
    name = file.stem
    if not file.is_file():
        raise PluginError("no such file")
    if file.suffix != ".py" or not name.isidentifier() or keyword.iskeyword(name):
        raise PluginError("expected is a Python file with a name that can be imported, such as my_adapters.py")
    origin = _origin(name)
    if origin is None:
        sys.path.append(str(file.parent))
        importlib.invalidate_caches()
    elif not (Path(origin).is_file() and file.samefile(origin)):
        raise PluginError(f"there is a module {name!r} already ({origin}): give the file another name")
    return importlib.import_module(name)


def _origin(name: str) -> str | None:
    """Where the module of that name comes from, or None if there is no such module."""
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # a module that was made by hand
        return "imported"
    if spec is None:
        return None
    return spec.origin or "a folder"
