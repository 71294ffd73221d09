"""Invalid defaults and links in plugins' specs are errors in training."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from perceiver_cli.links import fill_in_links
from perceiver_core import DecoderConfig
from perceiver_plugins.checkpoints.random_data import RandomDataModule
from perceiver_registry import UserError

PLUGIN = """
from perceiver_registry import DataSpec, ModelSpec, TaskSpec, hookimpl

PERCEIVER_INTERFACE = "2.0"


@hookimpl
def perceiver_tasks():
    defaults = {"model.encoder": "table", "model.decoder": "regression", **TASK_DEFAULTS}
    return [TaskSpec("mine", "perceiver_plugins.classification.regression:LitRegressor", "mine", "my-data",
                     defaults=defaults)]


@hookimpl
def perceiver_data():
    return [DataSpec("my-data", "perceiver_plugins.table.data:DiabetesDataModule", ("*",), "mine",
                     defaults=DATA_DEFAULTS)]


@hookimpl
def perceiver_models():
    config = {"encoder": "table", "decoder": "regression", **MODEL_CONFIG}
    return [ModelSpec("my-model", "mine", config, 1, "mine", defaults=MODEL_DEFAULTS)]
"""
OPTIONS = ("TASK_DEFAULTS", "DATA_DEFAULTS", "MODEL_CONFIG", "MODEL_DEFAULTS")
SMALL = (
    "--model.num_latents=2",
    "--model.num_latent_channels=8",
    "--model.encoder.num_self_attention_layers_per_block=1",
    "--model.decoder.num_output_query_channels=8",
    "--trainer.max_steps=1",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
)


@pytest.fixture
def fit_with(perceiver, tmp_path, request):
    """Return a function that trains the task of a plugin with given spec values."""

    def fit_with(options: dict, *flags: str):
        text = "".join(f"{name} = {options.get(name, {})!r}\n" for name in OPTIONS)
        file = tmp_path / f"plugin_{abs(hash(request.node.name))}.py"
        file.write_text(text + PLUGIN)
        return perceiver("fit", f"--plugin={file}", "--task=mine", *SMALL, *flags)

    return fit_with


@pytest.mark.parametrize(
    ("option", "key", "spec", "hint"),
    [
        ("TASK_DEFAULTS", "trainer.max_step", "task 'mine'", "trainer.max_steps"),
        ("TASK_DEFAULTS", "trainr.max_steps", "task 'mine'", "trainer.max_steps"),
        ("TASK_DEFAULTS", "model.num_latent", "task 'mine'", "model.num_latents"),
        ("TASK_DEFAULTS", "model.encoder.dropuot", "task 'mine'", "model.encoder.dropout"),
        ("TASK_DEFAULTS", "data.batchsize", "task 'mine'", "data.batch_size"),
        ("TASK_DEFAULTS", "task.patence", "task 'mine'", "task.patience"),
        ("DATA_DEFAULTS", "data.bach_size", "data module 'my-data'", "data.batch_size"),
        ("DATA_DEFAULTS", "model.decoder.dropot", "data module 'my-data'", "model.decoder.dropout"),
        ("MODEL_CONFIG", "encoder.dropot", "model 'my-model'", "model.encoder.dropout"),
        ("MODEL_DEFAULTS", "seed_everythin", "model 'my-model'", "seed_everything"),
    ],
)
def test_misspelt_default_is_reported(fit_with, option, key, spec, hint):
    flags = ["--model=my-model"] if option.startswith("MODEL") else []
    error = fit_with({option: {key: 1}}, *flags).error
    assert error.startswith(f"{spec} (plugin 'plugin_"), error
    shown = f"model.{key}" if option == "MODEL_CONFIG" else key
    assert f"unknown key {shown!r} in its defaults (did you mean {hint!r}" in error


def test_misspelt_options_of_the_default_optimizer_are_reported(fit_with):
    options = {"TASK_DEFAULTS": {"optimizer": "AdamW", "optimizer.learning_rate": 0.1}}
    assert "unknown key 'optimizer.learning_rate'" in fit_with(options).error


def test_defaults_for_other_choices_are_accepted(fit_with):
    options = {
        "TASK_DEFAULTS": {"optimizer": "SGD", "optimizer.momentum": 0.9, "data.batch_size": 8},
        "DATA_DEFAULTS": {"model.encoder": "image-patches", "model.encoder.patch_size": 4},
        "MODEL_DEFAULTS": {"data.image_size": 8, "trainer.callbacks": None},
    }
    flags = ["--optimizer=AdamW", "--data=my-data", "--model=my-model", "--model.encoder=table"]
    result = fit_with(options, *flags)
    assert result.code == 0, result.err


@dataclass
class Config(DecoderConfig):
    """Decoder config whose fields are filled in from the data: one with a default value, one optional."""

    size: int = 2
    names: list[str] | None = None


@pytest.fixture
def linked(monkeypatch):
    """Fill in the fields of a config with some links from a data module, and return them."""

    def linked(links: dict, data: object, name: str = "strange", **given: object) -> dict:
        fields = [("model.decoder", field, attribute) for field, attribute in links.items()]
        monkeypatch.setattr("perceiver_cli.links.linked_fields", lambda values: fields)
        monkeypatch.setattr("perceiver_cli.links.config_types", lambda *names: {"model.decoder": Config})
        values = {"model": {"decoder": dict(given)}, "data": {"name": name}}
        fill_in_links(values, data)
        return values["model"]["decoder"]

    return linked


def test_linked_fields_are_taken_from_the_data(linked):
    assert linked({"size": "width", "names": "names"}, SimpleNamespace(width=5, names=("a", "b"))) == {
        "size": 5,
        "names": ["a", "b"],
    }


def test_missing_linked_attribute_is_reported(linked):
    with pytest.raises(UserError, match=r"^--model.decoder.size: --data=strange has no attribute 'width' .*size=VALUE"):
        linked({"size": "width"}, SimpleNamespace(length=5))
    assert linked({"size": "width"}, SimpleNamespace(), size=7)["size"] == 7


def test_missing_optional_attribute_is_noted(linked, capsys):
    assert linked({"names": "labels"}, SimpleNamespace())["names"] is None
    assert "--model.decoder.names: left out: --data=strange has no attribute 'labels'" in capsys.readouterr().err


def test_data_for_any_task_may_lack_linked_attributes(linked, capsys):
    assert linked({"size": "width", "names": "labels"}, RandomDataModule(), "random")["size"] == 2
    assert not capsys.readouterr().err


def test_error_of_a_linked_property_is_reported(linked):
    class Unlabelled:
        @property
        def width(self):
            raise UserError("pass target=class")

    with pytest.raises(UserError, match="pass target=class"):
        linked({"size": "width"}, Unlabelled())
