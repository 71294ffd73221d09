"""Self-describing checkpoints, and one-line errors about other files."""

from __future__ import annotations

import json
import pickle
import re

import pytest
import torch

from perceiver_core import PerceiverConfig
from perceiver_plugins.composite import CompositeEncoderConfig
from perceiver_plugins.text import TextDecoderConfig
from perceiver_registry import PluginError, UserError, config_from_dict, config_to_dict, describe, read_checkpoint


class Foreign:
    """Class that the restricted unpickler rejects."""


@pytest.fixture
def description(text_config):
    return describe("mlm", text_config(params="somewhere"), data={"tokenizer": "bytes"}, run={"seed": 1})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some.ckpt"


def refusal(path, error_type=UserError) -> str:
    with pytest.raises(error_type) as error:
        read_checkpoint(path)
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_description_is_plain_data(description, path):
    assert json.loads(json.dumps(description)) == description
    torch.save({"state_dict": {"model.x": torch.ones(2)}, "perceiver": description}, path)
    assert torch.load(path, weights_only=True)["perceiver"] == description


def test_description_lists_required_plugins(description, text_config):
    assert description["task"] == "mlm"
    assert config_from_dict(description["model"]) == text_config()  # the weights are in the checkpoint: no params
    assert (description["data"], description["run"]) == ({"tokenizer": "bytes"}, {"seed": 1})
    used = [(p["kind"], p["name"], p["distribution"]) for p in description["plugins"]]
    assert used == [(k, n, "perceiver-zoo") for k, n in (("task", "mlm"), ("input", "text"), ("output", "text"))]
    assert all(re.match(r"\d+\.\d+", plugin["version"]) for plugin in description["plugins"])


def test_checkpoint_round_trip(description, path):
    torch.save({"state_dict": {"model.x": torch.arange(3.0)}, "perceiver": description}, path)
    for source in (path, str(path)):
        checkpoint = read_checkpoint(source)
        assert checkpoint["perceiver"] == description
        assert checkpoint["state_dict"]["model.x"].tolist() == [0, 1, 2]


def test_missing_file_is_rejected(path):
    assert "no such checkpoint" in refusal(path)
    path.mkdir()
    assert "no such checkpoint" in refusal(path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.98])
def test_truncated_file_is_rejected(description, path, share):
    torch.save({"state_dict": {"model.x": torch.ones(2000)}, "perceiver": description}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    assert "not a readable checkpoint" in refusal(path)


@pytest.mark.parametrize("content", [b"a text", b"broken", pickle.dumps({"a": 1}), pickle.dumps(Foreign())])
def test_file_of_another_format_is_rejected(path, content):
    path.write_bytes(content)
    refusal(path)


def test_pickled_class_is_rejected_without_creating_it(path):
    torch.save({"perceiver": Foreign()}, path)
    assert "not a readable checkpoint" in refusal(path)


@pytest.mark.parametrize("content", [{"state_dict": {}}, [1, 2], torch.ones(3)])
def test_checkpoint_of_another_project_is_rejected(path, content):
    torch.save(content, path)
    assert "not a checkpoint of perceiver" in refusal(path)


def test_newer_format_is_rejected(description, path):
    torch.save({"perceiver": description | {"format": 99}}, path)
    assert "written by a newer perceiver (format 99)" in refusal(path)


def test_missing_plugin_error_gives_the_pip_command(description, path):
    description["plugins"][1] |= {"name": "spectrogram", "distribution": "perceiver-audio", "version": "0.3"}
    torch.save({"perceiver": description}, path)
    needs = f"{path}: needs the input adapter 'spectrogram' of perceiver-audio 0.3"
    assert refusal(path, PluginError) == f"{needs}: pip install perceiver-audio==0.3"


def test_same_name_of_another_distribution_does_not_match(description, path):
    description["plugins"][1] |= {"distribution": "perceiver-audio", "version": "0.3"}
    torch.save({"perceiver": description}, path)
    assert "needs the input adapter 'text' of perceiver-audio 0.3: pip install" in refusal(path, PluginError)


def test_installed_plugin_replaces_a_local_file(description, path):
    description["plugins"][1] |= {"distribution": "my_adapters.py", "version": "local file"}
    torch.save({"perceiver": description}, path)
    assert read_checkpoint(path)["perceiver"] == description


def test_missing_name_error_gives_the_installed_version(description, path):
    description["plugins"][1] |= {"name": "spectrogram", "version": "9.0"}
    torch.save({"perceiver": description}, path)
    message = refusal(path, PluginError)
    assert re.search(r"of perceiver-zoo 9.0, which perceiver-zoo [\d.]+ does not register: pip install", message)
    assert message.endswith("perceiver-zoo==9.0")


def test_missing_data_module_is_accepted(text_config, path):
    description = describe("mlm", text_config(), run={"data": {"name": "python-docs"}})
    used = description["plugins"][-1]
    assert (used["kind"], used["name"], used["distribution"]) == ("data", "python-docs", "perceiver-zoo")
    used |= {"distribution": "perceiver-audio", "version": "0.3"}
    torch.save({"perceiver": description}, path)
    assert read_checkpoint(path)["perceiver"] == description


def test_full_and_short_names_are_equivalent(text_config):
    config = text_config()
    short, full = config_to_dict(config), config_to_dict(config, full_names=True)
    assert [short[part]["adapter"] for part in ("encoder", "decoder")] == ["text", "text"]
    assert [full[part]["adapter"] for part in ("encoder", "decoder")] == ["perceiver-zoo:text"] * 2
    assert config_from_dict(full) == config_from_dict(short) == config


def test_nested_adapters_have_full_names():
    inputs = {"words": {"adapter": "TextInputAdapter"}, "table": {"adapter": "table"}}
    config = PerceiverConfig(CompositeEncoderConfig(inputs=inputs), TextDecoderConfig())
    full = config_to_dict(config, full_names=True)["encoder"]
    assert full["adapter"] == "perceiver-zoo:composite"
    assert {name: part["adapter"] for name, part in full["inputs"].items()} == {
        "words": "perceiver-zoo:text",
        "table": "perceiver-zoo:table",
    }
    described = describe("mlm", config)
    assert described["model"]["encoder"]["inputs"]["words"] == {"adapter": "text"}
    assert [used["name"] for used in described["plugins"]] == ["mlm", "composite", "text", "table", "text"]
