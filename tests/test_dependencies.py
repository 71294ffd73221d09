"""Every package that is imported is declared, and the base is enough for the core, the registry and the command."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]

PACKAGES = ("perceiver_core", "registry/perceiver_registry", "cli/perceiver_cli", "perceiver_plugins")

OWN = {Path(package).name for package in PACKAGES}

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

INSTALLED = packages_distributions()

FIELDS = ("text", "image", "flow", "video", "table", "huggingface", "log", "onnx")
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


def distributions(package: str) -> set[str]:
    """Distributions that install a package."""
    return {canonicalize_name(name) for name in INSTALLED.get(package, [package])}


@pytest.mark.parametrize("package", PACKAGES)
def test_imported_packages_are_declared(package):
    declared = BASE | names([f"{PROJECT['name']}[all]"])
    paths = [*(ROOT / package).rglob("*.py")]
    assert len(paths) > 5
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
    paths = [path for path in ROOT.glob(pattern) if "testing" not in path.parts]
    assert len(paths) > 5
    beyond = {each for path in paths for each in imports(path, at_import=True) if not distributions(each) & BASE}
    assert beyond == set()


def test_all_installs_what_each_field_installs():
    extras = PROJECT["optional-dependencies"]
    assert names(extras["all"]) == set().union(*(names(extras[field]) for field in FIELDS))
    assert names(extras["all"]) <= names(extras["test"]) <= names(extras["dev"])


WITHOUT_EXTRAS = """
import importlib.abc, sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
from perceiver_cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def run_without_extras(tmp_path: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run the command where no package can be imported that only extras install."""
    optional = names([f"{PROJECT['name']}[all]"]) - BASE
    missing = {package for package, owners in INSTALLED.items() if {*map(canonicalize_name, owners)} & optional}
    code = WITHOUT_EXTRAS.format(missing=missing)
    return subprocess.run([sys.executable, "-c", code, *argv], cwd=tmp_path, capture_output=True, text=True)


def test_model_trains_without_extras(tmp_path):
    flags = ["--data=random", "--model.encoder=table", "--trainer.max_steps=2", "--trainer.accelerator=cpu"]
    done = run_without_extras(tmp_path, "fit", "--task=classification", *flags)
    assert done.returncode == 0, done.stderr
    assert "metrics are logged to CSV files instead" in done.stderr
    assert (tmp_path / "logs/classification/version_0/metrics.csv").is_file()


def test_missing_extra_is_one_line(tmp_path):
    done = run_without_extras(tmp_path, "fit", "--task=mlm")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("perceiver: task 'mlm'")
    assert "transformers" in line
