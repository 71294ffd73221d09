"""Checkpoints become folders of the hub; what is loaded from them in another process answers as before."""

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


def test_fill_mask(elsewhere: Any, language_model: Any, predicted: Callable[..., Any]) -> None:
    name, ours = elsewhere.ask("fill-mask", language_model.folder, language_model.inputs, top_k=262)
    assert name == "ZooForMaskedLM"
    of_command = predicted(language_model, "--top_k=256")
    for filling, guesses in zip(of_command, ours, strict=True):
        # The pipeline does not leave out the six special tokens, which are no text.
        text = {guess["token"] - 6: guess["score"] for guess in guesses if guess["token"] >= 6}
        of_bytes = sorted((score / sum(text.values()) for score in text.values()), reverse=True)
        assert of_bytes == pytest.approx([guess["probability"] for guess in filling["masks"][0]], abs=1e-6)
        [best] = [guess for guess in guesses if guess["token"] - 6 == max(text, key=lambda byte: text[byte])]
        assert best["token_str"] == filling["masks"][0][0]["token"]
        assert best["sequence"] == filling["filled"]


def test_text_classification(elsewhere: Any, text_classifier: Any, predicted: Callable[..., Any]) -> None:
    name, ours = elsewhere.ask("text-classification", text_classifier.folder, text_classifier.inputs, top_k=None)
    assert name == "ZooForSequenceClassification"
    _assert_same_classes(ours, predicted(text_classifier, "--top_k=2"))


def test_image_classification(elsewhere: Any, image_classifier: Any, predicted: Callable[..., Any]) -> None:
    name, ours = elsewhere.ask("image-classification", image_classifier.folder, image_classifier.inputs, top_k=3)
    assert name == "ZooForImageClassification"
    _assert_same_classes(ours, predicted(image_classifier))


def _assert_same_classes(ours: list[Any], of_command: list[Any]) -> None:
    for row, prediction in zip(ours, of_command, strict=True):
        assert [each["label"] for each in row] == [each["label"] for each in prediction["top"]]
        probabilities = [each["probability"] for each in prediction["top"]]
        assert [each["score"] for each in row] == pytest.approx(probabilities, abs=1e-6)
    assert len({prediction["probability"] for prediction in of_command}) == len(of_command)


def test_token_classification(elsewhere: Any, token_classifier: Any, predicted: Callable[..., Any]) -> None:
    name, [ours] = elsewhere.ask(
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
def test_numbers(elsewhere: Any, regressor: Any, predicted: Callable[..., Any]) -> None:
    """A model that no Auto class but AutoModel is made for; what it predicts depends on buffers that are not stored."""
    model, description = load(regressor.folder)
    reader = TableReader(description.data, model.input_adapter)
    batch = reader.collate([reader.read(each) for each in regressor.inputs])
    inputs = {name: value.tolist() for name, value in batch.items()}
    name, ours = elsewhere.ask(None, regressor.folder, inputs)
    assert name == "ZooModel"
    expected = [[row["y"], row["z"]] for row in predicted(regressor)]
    assert ours == [pytest.approx(row, rel=1e-6) for row in expected]
    assert all(100 < y < 180 for y, _ in expected)


@pytest.mark.usefixtures("quiet_transformers")
def test_weights_have_one_prefix_and_those_that_are_tied_are_there_once(language_model: Any) -> None:
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


@pytest.mark.usefixtures("quiet_transformers")
def test_a_folder_comes_back_as_a_checkpoint_describes_itself(
    language_model: Any, text_classifier: Any, regressor: Any
) -> None:
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
    """A copy of the language model's folder, to be changed."""
    return Path(shutil.copytree(language_model.folder, tmp_path / "model"))


def _edit(folder: Path, changes: Mapping[str, Any]) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["perceiver"] |= changes
    (folder / "config.json").write_text(json.dumps(config))


def test_an_adapter_that_is_not_installed_is_named_with_its_distribution(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())["perceiver"]
    config["model"]["encoder"]["adapter"] = "strange-audio:wave"
    wave = {"kind": "input", "name": "wave", "distribution": "strange-audio", "version": "1.2"}
    _edit(folder, {"model": config["model"], "plugins": [*config["plugins"], wave]})
    message = "needs the input adapter 'wave' of strange-audio 1.2: pip install strange-audio==1.2"
    for call in (ZooForMaskedLM.from_pretrained, load):
        with pytest.raises(PluginError) as caught:
            call(folder)
        assert str(caught.value) == f"{folder}: {message}"


def test_what_is_no_such_model_is_an_error_of_one_line(folder: Path, image_classifier: Any) -> None:
    for broken, message in _broken(folder, image_classifier.folder):
        with pytest.raises(UserError) as caught:
            broken()
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def _broken(folder: Path, of_images: Path) -> Iterator[tuple[Callable[[], Any], str]]:
    not_that = f"{of_images}: a model for perceiver-zoo:image-classification, which is a ZooForImageClassification"
    yield lambda: ZooForMaskedLM.from_pretrained(of_images), f"{not_that} and no ZooForMaskedLM"
    yield lambda: load(folder.parent / "nothing"), "nothing: no model of the zoo can be loaded from there"
    yield lambda: ZooModel(ZooConfig()), "config.json: describes no model of the zoo"
    _edit(folder, {"format": 99})
    yield lambda: load(folder), "written by a newer perceiver (format 99)"
    _edit(folder, {"format": 1})
    state = load_file(folder / "model.safetensors")
    lacking = {name: value for name, value in state.items() if "latents" not in name}
    save_file(lacking, folder / "model.safetensors", {"format": "pt"})
    yield lambda: load(folder), "'perceiver.encoder.latents' is missing or has another shape; 1 in all"
    (folder / "model.safetensors").write_bytes(b"nothing")
    yield lambda: load(folder), "model: no model of the zoo can be loaded from there"


def test_a_checkpoint_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such checkpoint"):
        from_checkpoint(tmp_path / "best.ckpt")


def test_labels_are_those_of_the_data(text_classifier: Any, image_classifier: Any) -> None:
    config = ZooConfig.from_pretrained(text_classifier.folder)
    assert (config.id2label, config.label2id) == ({0: "bad", 1: "good"}, {"bad": 0, "good": 1})
    assert ZooConfig.from_pretrained(image_classifier.folder).num_labels == 10


def test_the_configuration_is_read_by_its_type_once_it_is_registered(language_model: Any) -> None:
    from perceiver_plugins.huggingface import register

    register()
    register()
    config = AutoConfig.from_pretrained(language_model.folder)
    assert type(config) is ZooConfig
    assert config.task == "perceiver-zoo:mlm"
    assert config.to_dict()["perceiver"] == config.perceiver


def test_one_import_is_not_much_beside_that_of_transformers(elsewhere: Any) -> None:
    """Who serves a model waits for no library that trains one."""
    imported = {*elsewhere.ask("modules", "", [])[1]}
    assert "perceiver_plugins.huggingface.zoo_models" in imported
    assert not imported & {"pytorch_lightning", "datasets", "timm", "torchmetrics", "tensorboard", "matplotlib", "av"}
