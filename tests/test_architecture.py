"""Who may import whom: the contracts of pyproject.toml, checked by import-linter, and names that it cannot see."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_import_contracts_hold():
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


PACKAGES = (
    "perceiver_core",
    "perceiver_plugins",
    "registry/perceiver_registry",
    "cli/perceiver_cli",
    "cli/perceiver_zoo",
)

MODEL_CLASS = re.compile(r"(AutoModel|PreTrainedModel|Perceiver(Model|For|Config|PreTrained))\w*$")
"""Names of transformers' model classes, and of their configurations."""


def sources_outside(package: str) -> Iterator[Path]:
    for each in PACKAGES:
        yield from (path for path in (ROOT / each).rglob("*.py") if ROOT / package not in path.parents)


def model_classes(source: str) -> Iterator[str]:
    """Yield the names of transformers' model classes and modules that a module imports or reads."""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "transformers":
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("transformers.")]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "transformers":
            names = [node.attr]
        yield from (name for name in names if MODEL_CLASS.match(name) or "models" in name.split("."))


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from transformers import AutoModelForMaskedLM, AutoTokenizer", ["AutoModelForMaskedLM"]),
        ("import transformers\ntransformers.PerceiverForMaskedLM", ["PerceiverForMaskedLM"]),
        ("from transformers.models.perceiver import PerceiverTokenizer", ["models"]),
        ("import transformers.models.bert", ["transformers.models.bert"]),
        ("from transformers import PerceiverTokenizer, PerceiverImageProcessor", []),
        ("from transformers.optimization import get_cosine_schedule_with_warmup", []),
        ("from perceiver_core import PerceiverConfig", []),
    ],
)
def test_model_classes_of_transformers_are_found(source, found):
    assert [*model_classes(source)] == found


@pytest.mark.slow
def test_only_huggingface_uses_model_classes_of_transformers():
    outside = [*sources_outside("perceiver_plugins/huggingface")]
    assert len(outside) > 100
    assert {str(path): names for path in outside if (names := [*model_classes(path.read_text())])} == {}


def test_only_krasserm_names_that_project():
    assert [str(path) for path in sources_outside("perceiver_plugins/krasserm") if "krasserm" in path.read_text()] == []
