"""Cross-references in docstrings and documents resolve."""

from __future__ import annotations

import ast
import builtins
import importlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "perceiver_core": ROOT / "perceiver_core",
    "perceiver_plugins": ROOT / "perceiver_plugins",
    "perceiver_registry": ROOT / "registry" / "perceiver_registry",
    "perceiver_cli": ROOT / "cli" / "perceiver_cli",
}
ROLE = re.compile(r":(?:class|func|meth|attr|data|mod|exc):`~?([\w.]+)`")
NAMED = re.compile(rf"`((?:{'|'.join(PACKAGES)})(?:\.\w+)+)`")


def modules() -> list[str]:
    """Return all modules of the project's packages."""
    return sorted(
        ".".join([package, *file.relative_to(folder).with_suffix("").parts]).removesuffix(".__init__")
        for package, folder in PACKAGES.items()
        for file in folder.rglob("*.py")
        if "templates" not in file.parts and file.name != "__main__.py"
    )


def docstrings(tree: ast.AST, owner: str = "") -> Iterator[tuple[str, str]]:
    """Iterate over (name of the innermost class, text) of all docstrings, including those of attributes."""
    for node in ast.iter_child_nodes(tree):
        name = node.name if isinstance(node, ast.ClassDef) else owner
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield owner, node.value.value
        yield from docstrings(node, name)


def exists(name: str) -> bool:
    """Return whether a dotted name is a module, or an attribute path in a module."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            module: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        return has(module, parts[length:])
    return False


def has(value: Any, attributes: list[str]) -> bool:
    for name in attributes:
        annotated = {each for base in getattr(value, "__mro__", ()) for each in getattr(base, "__annotations__", ())}
        if not hasattr(value, name):
            return name in annotated or name in instance_attributes(value)
        value = getattr(value, name)
    return True


def instance_attributes(value: Any) -> set[str]:
    """Return the attributes that methods of a class of this project set on ``self``."""
    found: set[str] = set()
    for base in getattr(value, "__mro__", ()):
        if base.__module__.partition(".")[0] in PACKAGES:
            source = Path(importlib.import_module(base.__module__).__file__ or "").read_text(encoding="utf-8")
            found |= set(re.findall(r"self\.(\w+)(?:: [^=\n]+)? = ", source))
    return found


def resolves(name: str, module: Any, owner: str) -> bool:
    """Return whether a reference resolves in its class or module, or as an absolute name."""
    scopes = [getattr(module, owner)] if owner and hasattr(module, owner) else []
    return any(has(scope, name.split(".")) for scope in (*scopes, module, builtins)) or exists(name)


@pytest.mark.parametrize("module_name", modules())
def test_references_in_docstrings(module_name):
    module = importlib.import_module(module_name)
    tree = ast.parse(Path(module.__file__ or "").read_text(encoding="utf-8"))
    unresolved = [
        f"{owner or module_name}: {name}"
        for owner, text in docstrings(tree)
        for name in [*ROLE.findall(text), *NAMED.findall(text)]
        if not resolves(name, module, owner)
    ]
    assert not unresolved


DOCUMENTS = sorted(str(file.relative_to(ROOT)) for file in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")))


@pytest.mark.parametrize("file", DOCUMENTS)
def test_names_in_documents(file):
    names = NAMED.findall((ROOT / file).read_text(encoding="utf-8"))
    assert [name for name in names if not exists(name)] == []


def test_unresolved_references_are_found():
    module = importlib.import_module("perceiver_registry.specs")
    assert not resolves("NO_SUCH_NAME", module, "")
    assert not exists("perceiver_plugins.sdk.LitPerceiver")
    assert resolves("ANY_TASK", module, "DataSpec")
