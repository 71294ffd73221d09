"""Folders for the hub: pipelines in another process equal ``perceiver predict``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from perceiver_core import PerceiverIO
from perceiver_plugins.huggingface import ZooConfig, ZooForMaskedLM, ZooModel, from_checkpoint, load
from perceiver_plugins.table.reading import TableReader
from perceiver_plugins.text.reading import TextReader
from perceiver_registry import PluginError, UserError, read_checkpoint
from perceiver_registry.checkpoint import Checkpoint


def test_fill_mask(other_process: Any, language_model: Any, predicted: Callable[..., Any]) -> None:
    name, ours = other_process.run("fill-mask", language_model.folder, language_model.inputs, top_k=262)
    assert name == "ZooForMaskedLM"
    predictions = predicted(language_model, "--top_k=256")
    for filling, guesses in zip(predictions, ours, strict=True):
        # The pipeline also returns the six special tokens.
        text = {guess["token"] - 6: guess["score"] for guess in guesses if guess["token"] >= 6}
        of_bytes = sorted((score / sum(text.values()) for score in text.values()), reverse=True)
        assert of_bytes == pytest.approx([guess["probability"] for guess in filling["masks"][0]], abs=1e-6)
        [best] = [guess for guess in guesses if guess["token"] - 6 == max(text, key=lambda byte: text[byte])]
        assert best["token_str"] == filling["masks"][0][0]["token"]
        assert best["sequence"] == filling["filled"]


def test_text_classification(other_process: Any, text_classifier: Any, predicted: Callable[..., Any]) -> None:
    name, ours = other_process.run("text-classification", text_classifier.folder, text_classifier.inputs, top_k=None)
    assert name == "ZooForSequenceClassification"
    _assert_same_classes(ours, predicted(text_classifier, "--top_k=2"))


def test_image_classification(other_process: Any, image_classifier: Any, predicted: Callable[..., Any]) -> None:
    name, ours = other_process.run("image-classification", image_classifier.folder, image_classifier.inputs, top_k=3)
    assert name == "ZooForImageClassification"
    _assert_same_classes(ours, predicted(image_classifier))


def _assert_same_classes(ours: list[Any], predictions: list[Any]) -> None:
    for row, prediction in zip(ours, predictions, strict=True):
        assert [each["label"] for each in row] == [each["label"] for each in prediction["top"]]
        probabilities = [each["probability"] for each in prediction["top"]]
        assert [each["score"] for each in row] == pytest.approx(probabilities, abs=1e-6)
    assert len({prediction["probability"] for prediction in predictions}) == len(predictions)


def test_token_classification(other_process: Any, token_classifier: Any, predicted: Callable[..., Any]) -> None:
    name, [ours] = other_process.run(
        "token-classification", token_classifier.folder, token_classifier.inputs, ignore_labels=[]
    )
    assert name == "ZooForTokenClassification"
    [prediction] = predicted(token_classifier)
    tokens = prediction["tokens"]
    assert len(tokens) == len("Jörg in Köln".encode())
    assert [each["entity"] for each in ours] == [token["label"] for token in tokens]
    assert [each["score"] for each in ours] == pytest.approx([token["probability"] for token in tokens], abs=1e-6)
    assert [each["start"] for each in ours][:4] == [0, 1, 1, 2]  # both bytes of the ö


@pytest.mark.usefixtures("quiet_transformers")
def test_regression(other_process: Any, regressor: Any, predicted: Callable[..., Any]) -> None:
    """Model without an Auto class of its own, whose output depends on non-persistent buffers."""
    model, description = load(regressor.folder)
    reader = TableReader(description.data, model.input_adapter)
    batch = reader.collate([reader.read(each) for each in regressor.inputs])
    inputs = {name: value.tolist() for name, value in batch.items()}
    name, ours = other_process.run(None, regressor.folder, inputs)
    assert name == "ZooModel"
    expected = [[row["y"], row["z"]] for row in predicted(regressor)]
    assert ours == [pytest.approx(row, rel=1e-6) for row in expected]
    assert all(80 < y < 200 for y, _ in expected)  # in units of the data, 100 to 178


@pytest.mark.slow
@pytest.mark.usefixtures("quiet_transformers")
def test_names_of_weights_and_tied_weights(language_model: Any) -> None:
    with safe_open(language_model.folder / "model.safetensors", "pt") as file:
        names = {*file.keys()}
    ours = read_checkpoint(language_model.checkpoint)["state_dict"]
    tied = "output_adapter.embedding.weight"
    assert f"model.{tied}" in ours
    assert names == {f"perceiver.{name.removeprefix('model.')}" for name in ours} - {f"perceiver.{tied}"}
    model = ZooForMaskedLM.from_pretrained(language_model.folder)
    embedding = model.perceiver.input_adapter.token_embedding
    assert model.perceiver.output_adapter.embedding.weight is embedding.weight
    assert model.get_input_embeddings() is embedding
    for name, value in ours.items():
        torch.testing.assert_close(
            model.state_dict()[f"perceiver.{name.removeprefix('model.')}"], value, rtol=0, atol=0
        )


@pytest.mark.slow
@pytest.mark.usefixtures("quiet_transformers")
def test_round_trip_of_model_and_description(language_model: Any, text_classifier: Any, regressor: Any) -> None:
    for exported in (language_model, text_classifier, regressor):
        model, description = load(exported.folder)
        described = Checkpoint.read(exported.checkpoint).description
        assert type(model) is PerceiverIO
        assert not model.training
        assert description.plugins == described.plugins
        wrapped = ZooConfig.from_description(description).model_config()
        assert wrapped == ZooConfig.from_description(described).model_config() == model.config
        if exported is not regressor:
            readers = [TextReader(each.data, model.input_adapter) for each in (description, described)]
            for text in ["not bad, 5€", "the [SEP] cat " * 9]:
                one, other = (reader.collate([reader.read(text)])["input_ids"] for reader in readers)
                torch.testing.assert_close(one, other)
    assert description.data == described.data


@pytest.fixture
def folder(language_model: Any, tmp_path: Path) -> Path:
    """Copy of the language model's folder."""
    return Path(shutil.copytree(language_model.folder, tmp_path / "model"))


def _edit(folder: Path, changes: Mapping[str, Any]) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["perceiver"] |= changes
    (folder / "config.json").write_text(json.dumps(config))


def test_missing_adapter_is_reported_with_its_distribution(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())["perceiver"]
    config["model"]["encoder"]["adapter"] = "strange-audio:wave"
    wave = {"kind": "input", "name": "wave", "distribution": "strange-audio", "version": "1.2"}
    _edit(folder, {"model": config["model"], "plugins": [*config["plugins"], wave]})
    message = "needs the input adapter 'wave' of strange-audio 1.2: pip install strange-audio==1.2"
    for call in (ZooForMaskedLM.from_pretrained, load):
        with pytest.raises(PluginError) as caught:
            call(folder)
        assert str(caught.value) == f"{folder}: {message}"


@pytest.mark.slow
def test_invalid_folders_are_reported_in_one_line(folder: Path, image_classifier: Any) -> None:
    for broken, message in _broken(folder, image_classifier.folder):
        with pytest.raises(UserError) as caught:
            broken()
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def _broken(folder: Path, image_folder: Path) -> Iterator[tuple[Callable[[], Any], str]]:
    message = "a model for perceiver-zoo:image-classification must be loaded as ZooForImageClassification, not ZooFor"
    yield lambda: ZooForMaskedLM.from_pretrained(image_folder), f"{image_folder}: {message}MaskedLM"
    yield lambda: load(folder.parent / "nothing"), "nothing: cannot load a model of the zoo"
    yield lambda: ZooModel(ZooConfig()), "config.json: has no description of a model of the zoo"
    _edit(folder, {"format": 99})
    yield lambda: load(folder), "written by a newer perceiver (format 99)"
    _edit(folder, {"format": 1})
    state = load_file(folder / "model.safetensors")
    lacking = {name: value for name, value in state.items() if "latents" not in name}
    save_file(lacking, folder / "model.safetensors", {"format": "pt"})
    yield lambda: load(folder), "'perceiver.encoder.latents' is missing or has another shape (affected weights: 1)"
    (folder / "model.safetensors").write_bytes(b"nothing")
    yield lambda: load(folder), "model: cannot load a model of the zoo"


def test_missing_checkpoint_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such checkpoint"):
        from_checkpoint(tmp_path / "best.ckpt")


def test_class_names_are_those_of_the_data(text_classifier: Any, image_classifier: Any) -> None:
    config = ZooConfig.from_pretrained(text_classifier.folder)
    assert (config.id2label, config.label2id) == ({0: "bad", 1: "good"}, {"bad": 0, "good": 1})
    assert ZooConfig.from_pretrained(image_classifier.folder).num_labels == 10


def test_auto_config_reads_registered_configuration(language_model: Any) -> None:
    from perceiver_plugins.huggingface import register

    register()
    register()
    config = AutoConfig.from_pretrained(language_model.folder)
    assert type(config) is ZooConfig
    assert config.task == "perceiver-zoo:mlm"
    assert config.to_dict()["perceiver"] == config.perceiver


def test_auto_module_does_not_import_training_libraries(other_process: Any) -> None:
    imported = {*other_process.run("modules", "", [])[1]}
    assert "perceiver_plugins.huggingface.zoo_models" in imported
    assert not imported & {"pytorch_lightning", "datasets", "timm", "torchmetrics", "tensorboard", "matplotlib", "av"}
