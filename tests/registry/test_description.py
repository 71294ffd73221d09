"""Typed descriptions of models: conversion from and to plain data, and validation."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from perceiver_core import PerceiverConfig
from perceiver_registry import ModelDescription, UserError, config_from_dict, create_model, describe
from perceiver_registry.checkpoint import Checkpoint
from perceiver_registry.description import read_description
from perceiver_registry.formats import LoadedModel, Source


@pytest.fixture
def config(text_config) -> PerceiverConfig:
    return text_config()


@pytest.fixture
def plain(config) -> dict[str, Any]:
    run = {"data": {"name": "python-docs", "batch_size": 4}, "optimizer": {"name": "Lamb", "lr": 0.1}}
    return describe("mlm", config, data={"tokenizer": "bytes"}, run=run) | {"seed": 3}


def test_plain_data_round_trip(plain, config):
    description = ModelDescription.from_dict(plain, "m.ckpt")
    assert description.to_dict() == plain
    assert json.loads(json.dumps(plain)) == plain
    assert (description.task, description.seed, description.run) == ("mlm", 3, plain["run"])
    assert description.adapters() == ("text", "text")
    assert [(used.kind, used.name) for used in description.plugins] == [
        ("task", "mlm"),
        ("input", "text"),
        ("output", "text"),
        ("data", "python-docs"),
    ]
    assert config_from_dict(description.model) == config
    without_run = {name: value for name, value in plain.items() if name not in ("run", "seed")}
    assert description.to_dict(with_run=False) == without_run


def test_entries_keep_their_order(plain):
    assert [*plain] == ["format", "task", "model", "data", "run", "plugins", "seed"]


WRONG: list[tuple[str, Any, str]] = [
    ("", None, "it is not a mapping"),
    ("", [1], "it is not a mapping"),
    ("format", None, "format has the wrong type"),
    ("format", "1", "format has the wrong type"),
    ("format", 1.5, "format has the wrong type"),
    ("task", 3, "task has the wrong type"),
    ("model", [1], "model has the wrong type"),
    ("data", "text", "data has the wrong type"),
    ("run", None, "run has the wrong type"),
    ("seed", "3", "seed has the wrong type"),
    ("seed", True, "seed has the wrong type"),
    ("plugins", None, "plugins has the wrong type"),
    ("plugins", "text", "plugins has the wrong type"),
    ("plugins", [1], "plugins has the wrong type"),
    ("plugins.0.kind", "music", "plugins has the wrong type"),
    ("plugins.1.version", None, "plugins has the wrong type"),
    ("model.encoder", 1, "model.encoder has the wrong type"),
    ("model.decoder.adapter", None, "model.decoder.adapter has the wrong type"),
    ("model.num_latents", torch.ones(1), "model.num_latents has the wrong type"),
    ("run.data", 3, "run.data has the wrong type"),
    ("run.optimizer.name", 3, "run.optimizer has the wrong type"),
]


@pytest.mark.parametrize(("dotted", "value", "problem"), WRONG)
def test_invalid_entry_is_named(plain, dotted, value, problem):
    if dotted:
        *path, last = [int(key) if key.isdecimal() else key for key in dotted.split(".")]
        node = plain
        for key in path:
            node = node[key]
        node[last] = value
    with pytest.raises(UserError) as error:
        ModelDescription.from_dict(plain if dotted else value, "m.ckpt")
    assert str(error.value) == f"m.ckpt: its description of the model is damaged: {problem}"


def test_non_string_key_is_rejected(plain):
    plain["model"]["encoder"][5] = 1
    with pytest.raises(UserError, match=r"damaged: model\.encoder has the wrong type"):
        ModelDescription.from_dict(plain, "m.ckpt")


@pytest.mark.parametrize("name", ["format", "task", "model", "data", "run", "plugins"])
def test_missing_entry_is_named(plain, name):
    del plain[name]
    with pytest.raises(UserError, match=rf"^m\.ckpt: its description of the model is damaged: {name} is missing$"):
        ModelDescription.from_dict(plain, "m.ckpt")


def test_newer_layout_is_rejected_first():
    with pytest.raises(UserError, match=r"^m\.ckpt: written by a newer perceiver \(format 2\); please upgrade$"):
        ModelDescription.from_dict({"format": 2, "task": [], "plugins": 3}, "m.ckpt")


def test_unknown_entries_are_ignored(plain):
    assert read_description(plain | {"colour": "red"}, "m.ckpt").to_dict() == plain


def test_dict_access_is_deprecated(plain):
    description = ModelDescription.from_dict(plain, "m.ckpt")
    with pytest.warns(DeprecationWarning, match=r"description\['task'\] is deprecated .*: use description\.task"):
        assert description["task"] == "mlm"
    with pytest.warns(DeprecationWarning, match="use description"):
        assert {**description} == plain
    with pytest.warns(DeprecationWarning, match="use description"):
        assert description.get("data") == plain["data"]
    assert description.get("colour", 1) == 1
    assert "task" in description
    assert "colour" not in description


def test_format_with_dict_descriptions_is_read():
    model = create_model(
        "mnist-classifier", num_latents=2, num_latent_channels=8, decoder={"num_output_query_channels": 8}
    )

    class Older:
        def read(self, path):
            return LoadedModel(model, {"task": "image-classification", "model": {"encoder": {}}})

        def description(self, path):
            return self.read(path).description

    source = Source("x", None, Older())  # type: ignore[arg-type]
    for read in (lambda: source.description, lambda: source.read().description):
        with pytest.warns(DeprecationWarning, match="use a ModelDescription"):
            assert read() == ModelDescription("image-classification", {"encoder": {}})


def test_dict_description_of_a_model_becomes_typed():
    with pytest.warns(DeprecationWarning, match="use a ModelDescription"):
        _, description = LoadedModel(object(), {"task": "mlm", "model": {}})  # type: ignore[arg-type]
    assert description == ModelDescription("mlm", {})


def test_checkpoint_content_is_taken_once(plain, tmp_path):
    state = {"model.x": torch.ones(2), "metric": torch.ones(1)}
    torch.save({"state_dict": state, "perceiver": plain}, tmp_path / "m.ckpt")
    checkpoint = Checkpoint.read(tmp_path / "m.ckpt")
    assert checkpoint.description.to_dict() == plain
    assert [*checkpoint.weights] == ["x"]
    assert [*checkpoint.take()] == ["state_dict", "perceiver"]
    assert checkpoint.content == {}
    with pytest.raises(UserError, match="the checkpoint has no weights"):
        _ = checkpoint.weights
