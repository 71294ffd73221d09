"""English text that comes with Python: its reference topics and the docstrings of its standard library."""

from __future__ import annotations

import ast
import hashlib
import inspect
import platform
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

SKIPPED_FOLDERS = {"test", "tests", "idlelib", "lib2to3", "turtledemo", "site-packages", "dist-packages"}
"""Folders of the library that distributions of Python leave out or that hold other packages."""


def python_docs() -> Iterator[tuple[str, str]]:
    """Yield (name, text) of each document, about 2 MB in all, the same for the same version of Python.

    A document is one of ``pydoc``'s topics, or all docstrings of a module of the standard library. Modules
    are parsed, not imported.
    """
    from pydoc_data.topics import topics

    for name in sorted(topics):
        yield f"topic {name}", topics[name].strip()
    for name, path in standard_library():
        if text := _docstrings(path):
            yield f"module {name}", text


def standard_library() -> Iterator[tuple[str, Path]]:
    """Yield (name, file) of each module of the standard library, sorted by file."""
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library).parts
        # Build configuration (_sysconfigdata...) differs between builds of the same version.
        if not SKIPPED_FOLDERS.intersection(parts) and not parts[0].startswith(("config-", "_sysconfigdata")):
            yield ".".join(parts), path


def python_version() -> str:
    """Return the version that determines the texts."""
    return f"{platform.python_implementation()} {platform.python_version()}"


def split_of(name: str) -> str:
    """Assign a document to a split by its name: 90 % train, 5 % validation, 5 % test."""
    remainder = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % 20
    return {0: "validation", 1: "test"}.get(remainder, "train")


def _docstrings(path: Path) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in old modules
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return ""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    texts = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds)]
    return "\n\n".join(inspect.cleandoc(text) for text in texts if text)
