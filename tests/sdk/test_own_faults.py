"""Errors in this project's code are not reported as errors of files."""

from __future__ import annotations

import json
from types import ModuleType

import pytest

from perceiver_plugins.text import tokenizers
from perceiver_plugins.text.tokenizers import TokenizerError, load_tokenizer
from perceiver_registry.errors import surface_own_fault


def caught(module_name: str, code: str) -> Exception:
    """Return the error of a line of a module."""
    module = ModuleType(module_name)
    with pytest.raises(Exception) as error:  # noqa: PT011
        exec(code, module.__dict__)
    return error.value


@pytest.mark.parametrize("code", ["len(3)", "(3).missing", "missing", "dict(**3)"])
@pytest.mark.parametrize("module_name", ["perceiver_core.perceiver_io", "perceiver_plugins.text.data"])
def test_faults_of_our_lines_surface(module_name, code):
    error = caught(module_name, code)
    with pytest.raises(type(error)) as raised:
        surface_own_fault(error)
    assert raised.value is error


@pytest.mark.parametrize(
    ("module_name", "code"),
    [("perceiver_plugins.text", "int('x')"), ("transformers", "len(3)"), ("json.decoder", "(3).missing")],
)
def test_others_do_not(module_name, code):
    surface_own_fault(caught(module_name, code))


def test_a_library_that_changed_is_not_the_names_fault(tmp_path, monkeypatch):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps([1]))
    with pytest.raises(TokenizerError, match="could not be loaded from folder"):
        load_tokenizer(str(tmp_path))  # transformers itself fails with a TypeError or AttributeError
    monkeypatch.setattr(tokenizers.AutoTokenizer, "from_pretrained", lambda name: None)
    with pytest.raises(TypeError, match="trust_remote_code"):
        load_tokenizer(str(tmp_path))
