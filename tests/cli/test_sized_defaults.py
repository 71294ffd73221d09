"""Defaults by the size of the data: which sources of values take precedence over them."""

from __future__ import annotations

import shutil

import pytest
import yaml

from perceiver_plugins.text import sizing as text_sizing
from perceiver_registry import registry
from perceiver_registry.sizing import SizedDefaults, apply_size_rule

SIZED = {
    "model.num_latents": 6,
    "model.encoder.num_self_attention_layers_per_block": 2,
    "model.encoder.dropout": 0.25,
    "model.decoder.dropout": 0.125,
    "task.label_smoothing": 0.0625,
    "optimizer.lr": 0.5,
    "trainer.max_epochs": 5,
}
CHOOSE_DEFAULTS = text_sizing.choose_defaults

ARCHITECTURE = {name for name in SIZED if name.startswith("model.")}
ENCODER = {name for name in ARCHITECTURE if name != "model.decoder.dropout"}


@pytest.fixture
def classify(labelled, tmp_path) -> list[str]:
    """Flags of text classification without a choice of what the rule sets."""
    return ["--task=text-classification", *labelled, f"--data.cache_dir={tmp_path / 'cache'}"]


@pytest.fixture(autouse=True)
def rule(monkeypatch) -> dict[str, object]:
    """Defaults of the rule for texts, which a test may change."""
    defaults = dict(SIZED)
    monkeypatch.setattr(text_sizing, "choose_defaults", lambda size, has_words: defaults)
    return defaults


def value_at(config: dict, name: str):
    for key in name.split("."):
        config = config[key]
    return config


@pytest.fixture
def configure(perceiver):
    """Return a function that returns the configuration of a command line and the names of its sized options."""

    def configure(*argv: str) -> tuple[dict, set[str]]:
        result = perceiver("fit", *argv, "--print_config")
        assert result.code == 0, result.err
        lines = [line for line in result.err.splitlines() if "defaults by the size of the data" in line]
        flags = [word.removeprefix("--") for line in lines for word in line.split() if word.startswith("--")]
        flags = [flag for flag in flags if not flag.startswith("data.")]  # of the data module
        config = yaml.safe_load(result.out)
        for name, value in (flag.split("=") for flag in flags):
            assert value_at(config, name) == yaml.safe_load(value) == SIZED[name]
        return config, {flag.partition("=")[0] for flag in flags}

    return configure


FILE = """
trainer: {max_epochs: 9}
optimizer: {lr: 0.01}
model: {encoder: {dropout: 0.0}}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "kept"),
    [
        ([], set()),
        *(([f"--{name}={7 if isinstance(value, int) else 0.375}"], {name}) for name, value in SIZED.items()),
        (["--config=c.yaml"], {"trainer.max_epochs", "optimizer.lr", "model.encoder.dropout"}),
        (["--trainer=trainer.yaml"], {"trainer.max_epochs"}),
        (["--trainer.max_steps=3"], {"trainer.max_epochs"}),
        (["--optimizer=SGD", "--optimizer.lr=0.1"], {"optimizer.lr"}),
        (["--optimizer=AdamW"], set()),
        (["--lr_scheduler=none"], set()),
        (["--model.encoder=text"], set()),
        (["--model=small-text-classifier"], ARCHITECTURE),
    ],
)
def test_options_with_another_source_are_not_sized(flags, kept, classify, configure, tmp_path):
    (tmp_path / "c.yaml").write_text(FILE)
    (tmp_path / "trainer.yaml").write_text("max_epochs: 9\n")
    config, sized = configure(*classify, *flags)
    assert sized == SIZED.keys() - kept
    assert not [name for name in kept if value_at(config, name) == SIZED[name]]


@pytest.mark.slow
def test_architecture_of_pretrained_weights_is_kept(classify, configure, text_classifier):
    _, sized = configure(*classify, f"--model.params={text_classifier.best}")
    assert sized == SIZED.keys() - ARCHITECTURE
    config, sized = configure(*classify, f"--model.encoder.params={text_classifier.best}")
    assert sized == SIZED.keys() - ENCODER
    assert config["model"]["num_latents"] == 4


def test_defaults_of_the_data_module_are_kept(classify, configure):
    values = registry().get("data", "text-files").spec.defaults
    assert "optimizer.lr" not in values
    object.__setattr__(registry().get("data", "text-files").spec, "defaults", {"optimizer.lr": 0.03})
    try:
        config, sized = configure(*classify)
    finally:
        object.__setattr__(registry().get("data", "text-files").spec, "defaults", values)
    assert sized == SIZED.keys() - {"optimizer.lr"}
    assert config["optimizer"]["lr"] == 0.03


@pytest.mark.slow
def test_resumed_run_has_the_values_of_its_checkpoint(classify, configure, rule, perceiver, train, tmp_path):
    short = ["--trainer.limit_train_batches=1", "--trainer.max_epochs=1"]
    run = train(*classify, *short)
    shutil.copytree(run.folder.parents[1], tmp_path / "logs")
    assert run.result.out.startswith(
        "40 texts, 2 classes: --data.tokenizer=train:auto --model.encoder.dropout=0.25 --model.decoder.dropout=0.125"
    )
    saved = yaml.safe_load((run.folder / "config.yaml").read_text())
    assert saved["model"]["encoder"]["dropout"] == 0.25
    rule["model.encoder.dropout"] = 0.75
    resumed, sized = configure("--ckpt_path=last")
    assert not sized
    assert resumed["model"] == saved["model"]
    repeated, sized = configure(f"--config={run.folder / 'config.yaml'}")
    assert not sized
    assert repeated["model"] == saved["model"]


@pytest.mark.slow
def test_values_of_a_config_file_of_the_run_are_those_printed(classify, configure, tmp_path):
    config, _ = configure(*classify)
    (tmp_path / "printed.yaml").write_text(yaml.safe_dump(config))
    assert configure("--config=printed.yaml") == (config, set())


def test_rule_of_another_adapter_than_that_of_the_task(labelled, configure, rule):
    _, sized = configure("--task=classification", *labelled, "--model.encoder=text")
    assert sized == SIZED.keys()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("trainer.max_epoch", 3, "unknown key 'trainer.max_epoch' in its size_rule (did you mean 'trainer.max_epochs'"),
        ("model.encoder.dropuot", 0.1, "unknown key 'model.encoder.dropuot' in its size_rule"),
        ("trainer.max_epochs", "many", "size_rule: --trainer.max_epochs: must be a whole number or null, got 'many'"),
        ("data.batch_size", 8, "'data.batch_size' cannot depend on the size of the data"),
        ("optimizer", "SGD", "'optimizer' cannot depend on the size of the data"),
        ("model.encoder", "text", "'model.encoder' cannot depend on the size of the data"),
    ],
)
def test_invalid_default_of_a_rule_is_reported(key, value, message, rule, classify, perceiver):
    rule[key] = value
    error = perceiver("fit", *classify).error
    assert error.startswith("input adapter 'text' (plugin 'text' of perceiver-zoo"), error
    assert message in error


def test_default_for_another_decoder_is_left_out(rule, classify, configure):
    rule["model.decoder.num_targets"] = 3  # of the decoder 'regression'
    assert configure(*classify)[1] == SIZED.keys()


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({}, "its result is dict, must be SizedDefaults or None"),
        (SizedDefaults("two\nlines", {}), "facts='two\\nlines' must be one line"),
        (SizedDefaults("3 texts", []), "defaults is list, must be a mapping by dotted flag"),
        (ZeroDivisionError("by zero"), "fails: ZeroDivisionError: by zero"),
    ],
)
def test_invalid_result_of_a_rule_is_reported(found, message, monkeypatch, classify, perceiver):
    def rule(*arguments):
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(text_sizing, "size_rule", rule)
    error = perceiver("fit", *classify).error
    assert error.startswith("input adapter 'text' (plugin 'text' of perceiver-zoo")
    assert (
        f"size_rule 'perceiver_plugins.text.sizing:size_rule'{':' * (not isinstance(found, Exception))} {message}"
        in error
    )


@pytest.mark.parametrize("name", ["text", "table", "image-patches"])
def test_rules_have_no_defaults_for_data_of_unknown_size(name):
    entry = registry().get("input", name)
    for task in ("classification", "another"):
        assert apply_size_rule(entry, object(), task, {}) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        ["--task=image-classification", "--data=digits"],
        ["--task=mlm", "--data=python-docs"],
        ["--task=text-classification", "--data=languages"],
    ],
)
def test_demonstration_data_has_its_own_defaults(flags, configure, monkeypatch):
    monkeypatch.setattr(text_sizing, "choose_defaults", CHOOSE_DEFAULTS)
    assert configure(*flags)[1] == set()


@pytest.mark.parametrize(
    ("flags", "is_sized"),
    [(["--data=text-files"], True), (["--data=text-files", "--model.encoder=composite"], False)],
)
def test_help_mentions_defaults_by_size(flags, is_sized, perceiver):
    shown = perceiver("fit", "--task=classification", "--model.encoder=text", *flags, "--help")
    assert shown.code == 0, shown.err
    assert ("chosen by the size of the data" in " ".join(shown.out.split())) is is_sized
