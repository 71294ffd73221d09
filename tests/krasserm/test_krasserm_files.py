"""Reading of perceiver-io's files, and errors."""

from __future__ import annotations

import enum
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import peer
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PerceiverImageProcessor, PerceiverTokenizer, PreTrainedTokenizerFast

from perceiver_plugins.image.data.transforms import ImageFormat
from perceiver_plugins.krasserm import KrassermFormat
from perceiver_plugins.text.tokenizers import deserialize_tokenizer
from perceiver_registry import UserError, assemble, load_model, read_model
from perceiver_registry.formats import open_source
from perceiver_registry.testing import plugin_checks


@pytest.fixture(autouse=True)
def _no_network(monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def saved(tmp_path):
    """Function that saves a model of a kind to the folder ``model``."""

    def saved(kind: str, encoder=None, decoder=None, **settings) -> str:
        config = peer.model_config(kind, encoder, decoder)
        return peer.save_folder(tmp_path / "model", kind, config, peer.random_state(config), **settings)

    return saved


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Function that saves a checkpoint of a kind, with hyper-parameters of its data module."""

    def trained(kind: str, data_options=None, **more) -> str:
        config = peer.model_config(kind)
        state = peer.random_state(config)
        return peer.save_checkpoint(tmp_path / "best.ckpt", monkeypatch, config, state, data_options, **more)

    return trained


@pytest.mark.parametrize("check", plugin_checks("krasserm"))
def test_plugin_passes_the_plugin_checks(check):
    check()


@pytest.mark.parametrize(
    ("kind", "tokenizer_class"), [("masked-language-model", None), ("text-classifier", "PerceiverTokenizer")]
)
def test_byte_tokenizer(kind, tokenizer_class, saved):
    source = saved(kind, **({"tokenizer_class": tokenizer_class} if tokenizer_class else {}))
    if tokenizer_class:
        PerceiverTokenizer().save_pretrained(source)
    data = read_model(source).description.data
    assert deserialize_tokenizer(data["tokenizer"])("aé")["input_ids"] == [4, 103, 201, 175, 5]
    # As its pipelines do if there is a tokenizer, otherwise as its training does by default.
    assert data["add_special_tokens"] is bool(tokenizer_class)
    assert data["max_seq_len"] == 23
    assert data["target"] == ("masked" if kind == "masked-language-model" else "class")


def test_word_tokenizer(saved):
    words = {"[PAD]": 0, "[MASK]": 1, "[UNK]": 2, "good": 3, "bad": 4}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    source = saved("text-classifier", encoder={"vocab_size": 5}, tokenizer_class="PreTrainedTokenizerFast")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", mask_token="[MASK]", padding_side="left"
    )
    fast.save_pretrained(source)
    data = read_model(source).description.data
    assert deserialize_tokenizer(data["tokenizer"])("good bad ugly")["input_ids"] == [3, 4, 2]
    assert data["padding_side"] == "left"


def test_texts_are_not_described_without_a_tokenizer(saved):
    assert read_model(saved("text-classifier", encoder={"vocab_size": 40})).description.data == {}


def test_unavailable_tokenizer_is_a_warning(trained):
    with pytest.warns(UserWarning, match="the model cannot be used for prediction: tokenizer: 'some/tokenizer'"):
        loaded = read_model(trained("text-classifier", {"tokenizer": "some/tokenizer"}))
    assert loaded.description.data == {}


class Task(enum.Enum):
    clf = 2


def test_text_options_of_a_checkpoint(trained, monkeypatch):
    module = "perceiver.data.text.common"
    for name in ("perceiver", "perceiver.data", "perceiver.data.text", module):
        monkeypatch.setitem(sys.modules, name, sys.modules[__name__])
    monkeypatch.setattr(Task, "__module__", module)
    data_options = {"tokenizer": "krasserm/perceiver-io-mlm", "add_special_tokens": True, "padding_side": "left"}
    source = trained(
        "text-classifier", data_options | {"task": Task.clf, "static_masking": False, "padding_side": "left"}
    )
    monkeypatch.undo()
    data = read_model(source).description.data
    assert (data["add_special_tokens"], data["padding_side"], data["add_eos_token"]) == (True, "left", False)
    assert deserialize_tokenizer(data["tokenizer"])("a")["input_ids"] == [4, 103, 5]


def test_state_of_callbacks_is_ignored(trained):
    kept = {"dirpath": Path("x"), "score": np.float64(0.5), "dtype": np.dtype("int8")}
    source = trained("image-classifier", callbacks={"ModelCheckpoint": kept})
    assert read_model(source).description.task == "image-classification"


def test_checkpoint_with_plain_mappings(tmp_path):
    config = peer.model_config("text-classifier")
    state = {f"model.{name}": value for name, value in peer.random_state(config).items()}
    torch.save({"state_dict": state, "hyper_parameters": config | {"_class_path": "x"}}, tmp_path / "plain.ckpt")
    assert read_model(str(tmp_path / "plain.ckpt")).description.task == "text-classification"


def test_options_of_the_image_processor(saved):
    source = saved("image-classifier", id2label={"1": "cat", "0": "crane", "2": "dog", "3": "crane", "4": "eel"})
    PerceiverImageProcessor(image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.3, 0.4]).save_pretrained(source)
    model, description = read_model(source)
    expected = ImageFormat((6, 9), 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), 224 / 256)
    assert ImageFormat.from_description(description.data) == expected
    assert model.config.decoder.label_names == ["crane", "cat", "dog", "crane", "eel"]
    # As written by older versions.
    older = {"size": 224, "crop_size": 256, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
    Path(source, "preprocessor_config.json").write_text(json.dumps(older))
    assert ImageFormat.from_description(read_model(source).description.data) == expected


def test_options_of_the_image_processor_for_grey_images(saved):
    source = saved("image-classifier", encoder={"image_shape": (28, 28, 1)}, id2label={i: i for i in range(5)})
    processor = PerceiverImageProcessor(do_center_crop=False, do_resize=False, image_mean=0.5, image_std=0.25)
    processor.save_pretrained(source)
    model, description = read_model(source)
    assert ImageFormat.from_description(description.data) == ImageFormat((28, 28), 1, (0.5,), (0.25,), 1.0)
    assert model.config.decoder.label_names == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize(("data_options", "mean", "std"), [(None, 0.5, 0.5), ({"normalize": False}, 0.0, 1.0)])
def test_image_options_of_a_checkpoint(data_options, mean, std, trained):
    model, description = read_model(trained("image-classifier", data_options))
    assert ImageFormat.from_description(description.data) == ImageFormat((6, 9), 3, (mean,) * 3, (std,) * 3, 1.0)
    assert model.config.decoder.label_names is None


def test_weights_initialise_a_model(saved):
    source = saved("text-classifier")
    model = load_model(source)
    again = assemble(replace(model.config, params=source))
    encoder = assemble(replace(model.config, encoder=replace(model.config.encoder, params=source)))
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
        is_loaded = name.startswith(("input_adapter.", "encoder."))
        assert torch.equal(encoder.state_dict()[name], value) is is_loaded, name


class MaliciousPickle:
    """Object whose unpickling calls a function."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("function", [eval, print])
def test_code_in_a_checkpoint_is_not_executed(function, trained, capsys):
    source = trained("text-classifier", callbacks={"x": MaliciousPickle(function, "print('run')")})
    with pytest.raises(UserError, match=rf"best\.ckpt: .*whose pickle calls \w+\.{function.__name__}") as error:
        read_model(source)
    assert "\n" not in str(error.value)
    assert capsys.readouterr().out == ""


def test_classes_in_a_checkpoint_are_not_imported(trained, tmp_path, monkeypatch):
    source = trained("text-classifier", {"tokenizer": "deepmind/language-perceiver"})
    folder = tmp_path / "modules" / "perceiver"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(folder.parent)
    read_model(source)
    assert "perceiver" not in sys.modules


def test_other_checkpoints_are_not_recognised(tmp_path, text_config):
    for name, content in {
        "weights.ckpt": {"state_dict": {"model.x": torch.zeros(2)}},
        "lightning.ckpt": {"state_dict": {"model.x": torch.zeros(2)}, "hyper_parameters": {"lr": 0.1}},
        "list.ckpt": [1, 2],
        "class.ckpt": {"hyper_parameters": {"encoder": Path("x")}, "call": MaliciousPickle(print, "run")},
    }.items():
        torch.save(content, tmp_path / name)
        assert not KrassermFormat().recognises(str(tmp_path / name)), name
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    assert not KrassermFormat().recognises(str(tmp_path / "text.ckpt"))
    assert not KrassermFormat().recognises(str(tmp_path / "missing.ckpt"))


def test_other_folders_are_not_recognised(tmp_path):
    assert not KrassermFormat().recognises(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "perceiver"}')
    assert not KrassermFormat().recognises(str(tmp_path))
    with pytest.raises(UserError, match="not a model of krasserm/perceiver-io"):
        read_model(str(tmp_path), "krasserm")


def test_weights_of_another_model_are_reported(saved):
    source = saved("optical-flow")
    config = json.loads(Path(source, "config.json").read_text())
    for changes, message in {
        ("num_self_attention_layers_per_block", 3): "the weights of this optical flow model of perceiver-io lack '0.s",
        ("num_self_attention_layers_per_block", 1): "do not fit its configuration: '0.self_attn_1.1.0.module",
        ("num_patch_hidden_channels", 12): "model: does not fit the model: 'input_adapter.linear.weight' has shape",
        ("num_frequency_bands", 4): "its stored Fourier positions differ from those of its configuration",
    }.items():
        changed = config | {"model_config": {**config["model_config"]}}
        changed["model_config"]["encoder"] = config["model_config"]["encoder"] | dict([changes])
        Path(source, "config.json").write_text(json.dumps(changed))
        with pytest.raises(UserError, match=message) as error:
            read_model(source)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "encoder", "decoder", "message"),
    [
        ("image-classifier", {"image_shape": [6, 9, 4, 3]}, {}, "max_resolution=.*must be a height and a width"),
        (
            "optical-flow",
            {"num_patch_input_channels": 28},
            {},
            "num_patch_input_channels=28: must be 3 colours of a",
        ),
        ("optical-flow", {"num_patch_input_channels": 12}, {}, "patch_size=2: must be odd"),
        ("optical-flow", {}, {"image_shape": [5, 9]}, r"decoder.image_shape=\[5, 9\]: must be that of the encoder"),
        ("text-classifier", {"num_self_attention_heads": 0}, {}, "num_self_attention_heads=0: must be at least 1"),
        ("text-classifier", {"dropout": "much"}, {}, "unsupported text classifier of perceiver-io: "),
    ],
)
def test_unsupported_configurations_are_reported(kind, encoder, decoder, message, tmp_path):
    config = peer.model_config(kind, encoder, decoder)
    with pytest.raises(UserError, match=message) as error:
        read_model(peer.save_folder(tmp_path / "model", kind, config, {}))
    assert "\n" not in str(error.value)


def test_wrong_number_of_label_names_is_reported(saved):
    with pytest.raises(UserError, match=r"label_names: 2 names \(a, b\) do not match num_classes=5"):
        read_model(saved("text-classifier", id2label={"0": "a", "1": "b"}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_config": 3}, "invalid config.json of perceiver-io"),
        ({"model_config": {"encoder": {}, "decoder": 4}}, "unknown kind of model of perceiver-io"),
        (
            {"model_config": {"encoder": {"vocab_size": 3}, "decoder": {"num_classes": 3}}},
            "the configuration of a text classifier of perceiver-io lacks 'max_seq_len'",
        ),
        ({"id2label": {"one": 1}}, "invalid config.json of perceiver-io"),
    ],
)
def test_invalid_configurations_are_reported(settings, message, saved):
    with pytest.raises(UserError, match=message) as error:
        read_model(saved("text-classifier", **settings))
    assert "\n" not in str(error.value)


def test_invalid_image_processors_are_reported(saved):
    source = saved("image-classifier")
    for content in ("{", "[1]", '{"image_mean": 0.5}', '{"image_mean": 0.5, "image_std": 1, "size": {}}'):
        Path(source, "preprocessor_config.json").write_text(content)
        with pytest.raises(UserError, match=r"invalid preprocessor_config\.json of perceiver-io") as error:
            read_model(source)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("safe", [True, False])
def test_cached_download_is_read_offline(safe, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--krasserm--perceiver-io-mlm"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    config = peer.model_config("masked-language-model")
    state = peer.random_state(config)
    folder = repository / "snapshots" / ("0" * 40)
    PerceiverTokenizer().save_pretrained(folder)
    peer.save_folder(folder, "masked-language-model", config, state, safe)
    model, description = read_model("krasserm/perceiver-io-mlm")
    assert torch.equal(model.state_dict()["encoder.latents"], state["0.latent_provider._query"])
    assert description.data["add_special_tokens"]
    with pytest.raises(UserError, match="not available from the hub"):
        read_model("krasserm/perceiver-io-txt-clf-imdb")


def test_missing_and_damaged_weights_are_reported(saved):
    source = saved("text-classifier")
    weights = Path(source, "model.safetensors")
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(UserError, match=r"model: cannot read model\.safetensors"):
        read_model(source)
    weights.unlink()
    with pytest.raises(UserError, match=r"model: neither model\.safetensors nor pytorch_model\.bin found"):
        read_model(source)
    # The description does not need the weights.
    assert open_source(source).entry.resolve("format")().description(source).task == "text-classification"


def test_code_in_a_folder_is_not_executed(saved, capsys):
    source = saved("text-classifier")
    Path(source, "model.safetensors").unlink()
    torch.save({"x": MaliciousPickle(print, "run")}, Path(source, "pytorch_model.bin"))
    with pytest.raises(UserError, match=r"model: cannot read pytorch_model\.bin"):
        read_model(source)
    assert capsys.readouterr().out == ""
