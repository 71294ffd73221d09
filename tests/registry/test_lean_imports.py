"""Imports of large libraries by task.

torchmetrics, which Lightning imports, imports transformers and torchvision itself: what is recorded are the import
statements of our own modules.
"""

from __future__ import annotations

import json

import pytest
from environments import run_code

LARGE = ("datasets", "timm", "torchvision", "transformers")

FORBIDDEN = {
    "table": {"datasets", "timm", "torchvision", "transformers"},
    "text": {"timm", "torchvision"},
}
"""Libraries that the tasks of each input adapter do not import."""

RECORD = f"""
import builtins, contextlib, json

LARGE = {LARGE!r}
original, found = builtins.__import__, set()

def recording(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {{}}).get("__name__", "")
    if importer.startswith("perceiver_") and name.partition(".")[0] in LARGE:
        found.add((importer, name.partition(".")[0]))
    return original(name, globals, locals, fromlist, level)

builtins.__import__ = recording

from perceiver_registry import config_from_dict, create_module, registry

def build(adapter, task, data, decoder):
    entries = [registry().get("input", adapter), registry().get("task", task), registry().get("data", data)]
    for entry, fields in zip(entries, [("adapter", "config", "reader"), ("module", "predictor"), ("module",)]):
        for field in fields:
            entry.resolve(field)
    example = {{name.rpartition(".")[2]: value for name, value in entries[0].spec.example.items()}}
    config = config_from_dict({{
        "encoder": {{"adapter": adapter, "num_cross_attention_heads": 1, **example}},
        "decoder": {{"num_cross_attention_heads": 1, **decoder}},
        "num_latents": 4,
        "num_latent_channels": 16,
    }})
    create_module(task, config).find_optimizer("AdamW")

# The one that may import the least comes first: its modules are not imported again.
imports = {{}}
for adapter, task, data, decoder in [
    ("table", "classification", "table-files", {{"adapter": "classification", "num_classes": 3}}),
    ("text", "mlm", "text-files", {{"adapter": "text", "vocab_size": 40, "max_seq_len": 8}}),
]:
    found.clear()
    build(adapter, task, data, decoder)
    imports[adapter] = sorted(found)
print(json.dumps(imports))
"""


@pytest.fixture(scope="module")
def imports() -> dict[str, list[tuple[str, str]]]:
    """Modules of this project that import a large library, by input adapter and library."""
    return json.loads(run_code(RECORD))


def test_recorder_notices_imports(imports):
    assert ["perceiver_plugins.text.tokenizers", "transformers"] in imports["text"]


@pytest.mark.parametrize("adapter", FORBIDDEN)
def test_tasks_do_not_import_libraries_of_others(imports, adapter):
    assert [each for each in imports[adapter] if each[1] in FORBIDDEN[adapter]] == []
