"""Checkpoints describe themselves; what is no such checkpoint is refused in one line."""

from __future__ import annotations

import json
import pickle
import re

import pytest
import torch

from perceiver_registry import PluginError, UserError, config_from_dict, describe, read_checkpoint


class Foreign:
    """A class that a restricted unpickler does not know."""


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


def test_a_description_is_plain_data(description, path):
    assert json.loads(json.dumps(description)) == description
    torch.save({"state_dict": {"model.x": torch.ones(2)}, "perceiver": description}, path)
    assert torch.load(path, weights_only=True)["perceiver"] == description


def test_a_description_says_what_the_checkpoint_needs(description, text_config):
    assert description["task"] == "mlm"
    assert config_from_dict(description["model"]) == text_config()  # the weights are in the checkpoint: no params
    assert (description["data"], description["run"]) == ({"tokenizer": "bytes"}, {"seed": 1})
    used = [(p["kind"], p["name"], p["distribution"]) for p in description["plugins"]]
    assert used == [(k, n, "perceiver-zoo") for k, n in (("task", "mlm"), ("input", "text"), ("output", "text"))]
    assert all(re.match(r"\d+\.\d+", plugin["version"]) for plugin in description["plugins"])


def test_a_checkpoint_is_read_as_it_was_written(description, path):
    torch.save({"state_dict": {"model.x": torch.arange(3.0)}, "perceiver": description}, path)
    for place in (path, str(path)):
        checkpoint = read_checkpoint(place)
        assert checkpoint["perceiver"] == description
        assert checkpoint["state_dict"]["model.x"].tolist() == [0, 1, 2]


def test_a_missing_file_is_refused(path):
    assert "no such checkpoint" in refusal(path)
    path.mkdir()
    assert "no such checkpoint" in refusal(path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.98])
def test_a_truncated_file_is_refused(description, path, share):
    torch.save({"state_dict": {"model.x": torch.ones(2000)}, "perceiver": description}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    assert "not a readable checkpoint" in refusal(path)


@pytest.mark.parametrize("content", [b"a text", b"broken", pickle.dumps({"a": 1}), pickle.dumps(Foreign())])
def test_another_kind_of_file_is_refused(path, content):
    path.write_bytes(content)
    refusal(path)


def test_a_pickled_class_is_refused_and_not_created(path):
    torch.save({"perceiver": Foreign()}, path)
    assert "not a readable checkpoint" in refusal(path)


@pytest.mark.parametrize("content", [{"state_dict": {}}, [1, 2], torch.ones(3)])
def test_a_checkpoint_of_another_project_is_refused(path, content):
    torch.save(content, path)
    assert "not one of perceiver" in refusal(path)


def test_a_newer_format_is_refused(description, path):
    torch.save({"perceiver": description | {"format": 99}}, path)
    assert "written by a newer perceiver (format 99)" in refusal(path)


def test_a_missing_plugin_is_an_error_that_names_what_to_install(description, path):
    description["plugins"][1] |= {"name": "spectrogram", "distribution": "perceiver-audio", "version": "0.3"}
    torch.save({"perceiver": description}, path)
    message = refusal(path, PluginError)
    assert "input adapter 'spectrogram' of perceiver-audio 0.3" in message
    assert "pip install perceiver-audio" in message
