"""Discovery of installed plugins in a fresh interpreter, without importing torch."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

LIST_ALL = """
from perceiver_registry import registry
for kind in ("input", "output", "task", "data", "model"):
    print(kind, *(entry.name for entry in registry().entries(kind)))
"""
PRINT_HEAVY = """
import sys
print("heavy", *({"torch", "numpy", "pytorch_lightning", "transformers", "datasets"} & set(sys.modules)))
"""


def python(code: str, *path: Path) -> dict[str, list[str]]:
    """Run ``code`` in a fresh interpreter, and return the words of each printed line by its first word."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    return {words[0]: words[1:] for words in map(str.split, result.stdout.splitlines())}


def test_listing_all_entries_imports_no_heavy_modules():
    lines = python(LIST_ALL + PRINT_HEAVY)
    assert "text" in lines["input"]
    assert "text" in lines["output"]
    assert "mlm" in lines["task"]
    assert "wikipedia" in lines["data"]
    assert "language-perceiver" in lines["model"]
    assert lines["heavy"] == []


PLUGIN_MODULE = """
from perceiver_registry import AdapterSpec, hookimpl

@hookimpl
def perceiver_adapters():
    yield AdapterSpec(
        name="wave",
        kind="input",
        adapter="strange_audio.adapters:WaveInput",
        config="strange_audio.adapters:WaveEncoderConfig",
        summary="frames of a waveform",
    )
    yield AdapterSpec(
        name="unfinished",
        kind="output",
        adapter="strange_audio.missing:Output",
        config="strange_audio.missing:Config",
        summary="not written yet",
    )
"""
ADAPTERS_MODULE = """
from dataclasses import dataclass

from torch import nn

from perceiver_core import AdaptedInput, EncoderConfig, InputAdapter


@dataclass
class WaveEncoderConfig(EncoderConfig):
    frame_length: int = 16
    num_channels: int = 12


class WaveInput(InputAdapter):
    def __init__(self, frame_length, num_channels):
        super().__init__(num_channels)
        self.frame_length = frame_length
        self.linear = nn.Linear(frame_length, num_channels)

    @classmethod
    def from_config(cls, config):
        return cls(config.frame_length, config.num_channels)

    def forward(self, batch):
        return AdaptedInput(self.linear(batch["wave"].unflatten(1, (-1, self.frame_length))))
"""


@pytest.fixture
def plugin_folder(tmp_path):
    """Folder with an installed distribution ``strange-audio`` that has an input adapter."""
    package = tmp_path / "strange_audio"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "plugin.py").write_text(PLUGIN_MODULE)
    (package / "adapters.py").write_text(ADAPTERS_MODULE)
    info = tmp_path / "strange_audio-0.7.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strange-audio\nVersion: 0.7\n")
    (info / "entry_points.txt").write_text("[perceiver]\naudio = strange_audio.plugin\n")
    return tmp_path


def test_third_party_plugin_is_listed_with_its_distribution(plugin_folder):
    code = """
    entry = registry().get("input", "wave")
    print("from", entry.plugin.name, entry.plugin.distribution, entry.plugin.version)
    """
    lines = python(LIST_ALL + textwrap.dedent(code) + PRINT_HEAVY, plugin_folder)
    assert {"text", "wave"} <= set(lines["input"])
    assert "unfinished" in lines["output"]  # import paths are resolved on first use
    assert lines["from"] == ["audio", "strange-audio", "0.7"]
    assert lines["heavy"] == []


def test_third_party_input_adapter_works_with_a_built_in_output_adapter(plugin_folder):
    code = """
    import torch
    from perceiver_registry import PluginError, assemble, config_from_dict, config_to_dict, describe, registry

    plain = {
        "encoder": {"adapter": "wave", "frame_length": 5, "num_self_attention_layers_per_block": 1},
        "decoder": {"adapter": "text", "vocab_size": 9, "max_seq_len": 7, "num_output_query_channels": 24},
        "num_latents": 3,
        "num_latent_channels": 16,
    }
    config = config_from_dict(plain)
    print("type", type(config.encoder).__name__)
    print("again", config_from_dict(config_to_dict(config)) == config)
    print("logits", *assemble(config)({"wave": torch.randn(2, 40)}).shape)
    print("needs", *(plugin["distribution"] for plugin in describe("mlm", config)["plugins"]))
    try:
        registry().get("output", "unfinished").resolve("adapter")
    except PluginError as error:
        print("error", error)
    """
    lines = python(code, plugin_folder)
    assert lines["type"] == ["WaveEncoderConfig"]
    assert lines["again"] == ["True"]
    assert lines["logits"] == ["2", "7", "9"]
    assert lines["needs"] == ["perceiver-zoo", "strange-audio", "perceiver-zoo"]
    assert "'strange_audio.missing:Output':" in lines["error"]
