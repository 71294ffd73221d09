"""Every package that is imported is declared, and the base is enough for the core, the registry and the command.

``.ci/base`` runs the command in an environment without extras.
"""

from __future__ import annotations

import ast
import functools
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]

PACKAGES = (
    "perceiver_core",
    "registry/perceiver_registry",
    "cli/perceiver_cli",
    "cli/perceiver_zoo",
    "perceiver_plugins",
)

OWN = {Path(package).name for package in PACKAGES}

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

ESTIMATORS = ROOT / "cli/perceiver_zoo/estimators.py"
"""Module that ``perceiver_zoo`` imports lazily, as its classes derive from scikit-learn's."""

FIELDS = ("text", "image", "flow", "audio", "video", "table", "music", "huggingface", "log", "onnx")
"""Extras of users."""


def names(requirements: list[str]) -> set[str]:
    """Distributions that requirements name, with those of this project's extras."""
    found = set()
    for requirement in map(Requirement, requirements):
        if requirement.name == PROJECT["name"]:
            for extra in requirement.extras:
                found |= names(PROJECT["optional-dependencies"][extra])
        else:
            found.add(canonicalize_name(requirement.name))
    return found


BASE = names(PROJECT["dependencies"])


def imports(path: Path, at_import: bool = False) -> Iterator[str]:
    """Yield the packages of others that a file imports: all of them, or those that importing the file imports."""
    todo: list[ast.AST] = [ast.parse(path.read_text())]
    while todo:
        node = todo.pop()
        lazy = isinstance(node, ast.FunctionDef) or (
            isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        )
        if at_import and lazy:
            continue
        todo += ast.iter_child_nodes(node)
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules = [node.module]
        packages = {module.partition(".")[0] for module in modules}
        yield from packages - OWN - set(sys.stdlib_module_names)


@functools.cache
def installed() -> Mapping[str, list[str]]:
    """Distributions of all installed packages, cached because reading their file lists takes seconds."""
    return packages_distributions()


def distributions(package: str) -> set[str]:
    """Distributions that install a package."""
    return {canonicalize_name(name) for name in installed().get(package, [package])}


@pytest.mark.parametrize("package", PACKAGES)
def test_imported_packages_are_declared(package):
    declared = BASE | names([f"{PROJECT['name']}[all]"])
    paths = [*(ROOT / package).rglob("*.py")]
    assert len(paths) >= 5
    undeclared = {
        f"{path.relative_to(ROOT)}: {each}"
        for path in paths
        for each in imports(path)
        if not distributions(each) & declared
    }
    assert undeclared == set()


def test_core_imports_torch_alone():
    assert {each for path in (ROOT / "perceiver_core").rglob("*.py") for each in imports(path)} == {"torch"}


@pytest.mark.parametrize("pattern", ["registry/**/*.py", "cli/**/*.py", "perceiver_plugins/*/plugin.py"])
def test_base_is_enough_for_registry_command_and_plugin_modules(pattern):
    paths = [path for path in ROOT.glob(pattern) if "testing" not in path.parts and path != ESTIMATORS]
    assert len(paths) >= 5
    beyond = {each for path in paths for each in imports(path, at_import=True) if not distributions(each) & BASE}
    assert beyond == set()


def test_all_installs_what_each_field_installs():
    extras = PROJECT["optional-dependencies"]
    assert names(extras["all"]) == set().union(*(names(extras[field]) for field in FIELDS))
    assert names(extras["all"]) <= names(extras["test"]) <= names(extras["dev"])
