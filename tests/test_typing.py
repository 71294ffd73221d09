"""Types that a user's type checker sees, and the names that packages export lazily."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from mypy import api

USER = """\
from perceiver_plugins.classification import LitClasifier
from perceiver_plugins.text import LanguageModel, LitLanguageModel, PythonDocsDataModule
from perceiver_plugins.text import PerceiverConfig, TextDecoderConfig, TextEncoderConfig

config = PerceiverConfig(TextEncoderConfig(vocab_sise=262), TextDecoderConfig())
model: LanguageModel = LitLanguageModel.create(config).model
data = PythonDocsDataModule(batch_size="8")
LitLanguageModel.create(config, optimizer=1)
"""

MISTAKES = {
    1: 'Module "perceiver_plugins.classification" has no attribute "LitClasifier"',
    5: 'Unexpected keyword argument "vocab_sise" for "TextEncoderConfig"',
    7: 'Argument "batch_size" to "PythonDocsDataModule" has incompatible type "str"; expected "int"',
    8: 'Argument "optimizer" to "create" of "LitPerceiver" has incompatible type "int"',
}

CONFIG = """\
[mypy]
follow_imports = silent
ignore_missing_imports = true

[mypy-torch.*,pytorch_lightning.*,transformers.*,torchmetrics.*,numpy.*,PIL.*,av.*,matplotlib.*,jsonargparse.*]
follow_imports = skip
"""
"""Libraries are left out: checking them takes minutes, and their types are not the subject."""

PACKAGES = [
    "audio",
    "audio.data",
    "classification",
    "composite",
    "flow",
    "flow.data",
    "huggingface",
    "image",
    "image.data",
    "krasserm",
    "multimodal",
    "multimodal.data",
    "serving",
    "table",
    "text",
]


@pytest.mark.slow
def test_wrong_calls_are_type_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("user.py").write_text(USER)
    Path("mypy.ini").write_text(CONFIG)
    output, errors, _ = api.run(["--config-file=mypy.ini", "--cache-dir=cache", "--hide-error-codes", "user.py"])
    found = [line for line in output.splitlines() if ": error:" in line]
    assert not errors
    assert len(found) == len(MISTAKES), output
    for line, (number, message) in zip(found, MISTAKES.items(), strict=True):
        assert line.startswith(f"user.py:{number}: error: {message}")


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_list_their_exports(package: str) -> None:
    module = importlib.import_module(f"perceiver_plugins.{package}")
    assert module.__all__
    assert dir(module) == sorted(module.__all__)
    assert all(getattr(module, name) is not None for name in module.__all__)
    with pytest.raises(AttributeError, match="NoSuchName"):
        module.NoSuchName  # noqa: B018
