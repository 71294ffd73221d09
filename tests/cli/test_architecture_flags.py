"""``--model.architecture``: which flags and defaults apply, what is refused, and lists."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from perceiver_plugins.image import sizing as image_sizing
from perceiver_registry.sizing import SizedDefaults

PLUGIN = f"--plugin={Path(__file__).parents[1] / 'registry' / 'pooling.py'}"
DIGITS = ("--task=image-classification", "--data=digits", "--trainer.accelerator=cpu")
POOLING = (PLUGIN, *DIGITS, "--model.architecture=pooling")


@pytest.fixture
def model_of(perceiver):
    """Return a function that returns the section ``model`` of the configuration of a command line."""

    def model_of(*argv: str) -> dict:
        result = perceiver("fit", *argv, "--print_config")
        assert result.code == 0, result.err
        return yaml.safe_load(result.out)["model"]

    return model_of


def test_listing(perceiver):
    rows = {row["name"]: row for row in json.loads(perceiver("list-architectures", PLUGIN, "--format=json").out)}
    found = {name: (row["distribution"], row["kind"]) for name, row in rows.items()}
    assert found == {
        "perceiver-ar": ("perceiver-zoo", "architecture"),
        "perceiver-io": ("perceiver-zoo", "architecture"),
        "pooling": ("pooling.py", "architecture"),
    }
    (described,) = json.loads(perceiver("describe", "pooling", PLUGIN, "--format=json").out)
    assert described["details"] == {"model": "pooling:Pooling", "config": "pooling:PoolingConfig"}
    assert [field["field"] for field in described["fields"]] == ["num_hidden_channels", "params"]
    (task,) = json.loads(perceiver("describe", "pooled-classification", PLUGIN, "--format=json").out)
    assert task["details"]["architecture"] == "pooling"


def test_default_architecture(model_of):
    model = model_of(*DIGITS)
    assert model["architecture"] == "perceiver-io"
    assert model["num_latents"] > 0
    assert model_of(*DIGITS, "--model.architecture=perceiver-io") == model
    assert model_of(*DIGITS, "--model.architecture=PerceiverIO") == model


def test_architecture_decides_which_options_exist(model_of):
    model = model_of(*POOLING, "--model.num_hidden_channels=5")
    assert {"architecture", "num_hidden_channels", "params", "encoder", "decoder"} == model.keys() - {"name"}
    assert (model["architecture"], model["num_hidden_channels"]) == ("pooling", 5)
    assert not {"num_self_attention_heads", "dropout", "freeze", "params"} & model["encoder"].keys()
    assert "num_cross_attention_heads" not in model["decoder"]
    assert model["decoder"]["num_classes"] is None  # that of the data
    shown = model_of(*DIGITS)
    shared = model["encoder"].keys() & shown["encoder"].keys()
    assert {"adapter", "init_scale"} < shared
    assert {name: model["encoder"][name] for name in shared} == {name: shown["encoder"][name] for name in shared}


def test_task_with_another_default_architecture(model_of, perceiver):
    task = (PLUGIN, "--task=pooled-classification", "--trainer.accelerator=cpu")
    model = model_of(*task)
    assert (model["architecture"], model["num_hidden_channels"]) == ("pooling", 12)
    error = perceiver("fit", *task, "--model.num_latents=3").error
    assert error == "--model.num_latents: has no effect with --model.architecture=pooling (leave it out)"

    other = model_of(*task, "--model.architecture=perceiver-io")
    assert other["num_latents"] > 0
    assert "num_hidden_channels" not in other
    error = perceiver("fit", *task, "--model.architecture=perceiver-io", "--model.num_hidden_channels=3").error
    assert error == "--model.num_hidden_channels: has no effect with --model.architecture=perceiver-io (leave it out)"


@pytest.mark.parametrize(
    "flag",
    [
        "--model.num_latents=3",
        "--model.init=local",
        "--model.encoder.num_self_attention_heads=2",
        "--model.encoder.params=weights.safetensors",
        "--model.decoder.num_cross_attention_heads=2",
    ],
)
def test_flags_of_other_architectures_are_refused(perceiver, flag):
    name = flag.partition("=")[0]
    error = perceiver("fit", *POOLING, flag).error
    assert error == f"{name}: has no effect with --model.architecture=pooling (leave it out)"


def test_options_of_other_architectures_in_files_are_refused(perceiver, tmp_path):
    file = tmp_path / "run.yaml"
    for model in ({"num_latents": 256}, {"encoder": {"dropout": 0.0}}):  # the defaults
        file.write_text(yaml.safe_dump({"model": {"architecture": "pooling", **model}}))
        error = perceiver("fit", PLUGIN, *DIGITS, f"--config={file}").error
        assert error.endswith(": has no effect with --model.architecture=pooling (leave it out)")
        assert error.startswith(f"--config={file}, line ")


def test_options_in_files_belong_to_the_architecture_in_the_file(model_of, perceiver, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("model:\n  architecture: pooling\n  num_hidden_channels: 7\n")
    assert model_of(PLUGIN, *DIGITS, f"--config={file}")["num_hidden_channels"] == 7
    other = model_of(PLUGIN, *DIGITS, f"--config={file}", "--model.architecture=perceiver-io")
    assert "num_hidden_channels" not in other
    file.write_text("model: {architecture: [pooling]}\n")
    error = perceiver("fit", PLUGIN, *DIGITS, f"--config={file}").error
    assert error == "model.architecture: must be a name, got ['pooling']"


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--model.architecture=poling", "unknown architecture 'poling'; did you mean 'pooling'?"),
        ("--model.num_hiden_channels=4", "--model.num_hiden_channels: unknown flag (did you mean '--model.num_hidden_"),
        ("--model.num_hidden_channels=0", "PoolingConfig.num_hidden_channels=0: must be at least 1"),
        ("--optimizer.layer_decay=0.5", "--optimizer.layer_decay: needs a model of architecture 'perceiver-io', got"),
    ],
)
def test_wrong_flags(perceiver, flag, message):
    assert perceiver("fit", *POOLING, flag).error.startswith(message)


def test_options_of_an_architecture_are_unknown_to_others(perceiver):
    error = perceiver("fit", PLUGIN, *DIGITS, "--model.num_hidden_channels=4").error
    assert error.startswith("--model.num_hidden_channels: unknown flag")


def test_size_rules_apply_to_the_default_architecture(perceiver, monkeypatch):
    def rule(datamodule, task, values):
        return SizedDefaults("few images", {"model.num_latents": 9, "optimizer.lr": 0.5})

    monkeypatch.setattr(image_sizing, "size_rule", rule)
    data = (PLUGIN, "--task=image-classification", "--data=digits", "--trainer.accelerator=cpu")
    for flags, is_sized in (((), True), (("--model.architecture=pooling",), False)):
        result = perceiver("fit", *data, *flags, "--print_config")
        assert ("defaults by the size of the data" in result.err) == is_sized
        assert (yaml.safe_load(result.out)["optimizer"]["lr"] == 0.5) == is_sized


def test_names_are_completed(perceiver):
    words = perceiver("completion", "words", "--", "fit", PLUGIN, "--model.architecture=p").out.split()
    assert words == [f"--model.architecture={name}" for name in ("perceiver-ar", "perceiver-io", "pooling")]
