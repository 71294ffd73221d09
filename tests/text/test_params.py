"""Sources of ``params``: files, checkpoints and folders, valid and invalid."""

from __future__ import annotations

import dataclasses

import pytest
import safetensors.torch
import torch
import transformers

from perceiver_plugins.huggingface.text import convert_config
from perceiver_plugins.text.model import LanguageModel
from perceiver_registry import UserError, assemble, describe, load_params

SIZES = {
    "vocab_size": 41,
    "max_position_embeddings": 19,
    "num_latents": 7,
    "d_latents": 20,
    "d_model": 16,
    "num_self_attends_per_block": 1,
    "num_self_attention_heads": 5,
    "num_cross_attention_heads": 4,
}


@pytest.fixture
def model(text_config, randomise):
    return randomise(LanguageModel(text_config()))


def assert_same_weights(loaded, model) -> None:
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), atol=0, rtol=0)


def refusal(config) -> str:
    """Message of the error about ``config.params``, checked to be one line that names the source."""
    with pytest.raises(UserError) as error:
        LanguageModel(config)
    message = str(error.value)
    assert "\n" not in message
    assert config.params in message
    return message


@pytest.fixture
def safetensors_file(model, tmp_path):
    path = str(tmp_path / "model.safetensors")
    safetensors.torch.save_model(model, path)
    return path


@pytest.fixture
def checkpoint(model, tmp_path):
    path = str(tmp_path / "model.ckpt")
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": state | {"metric": torch.zeros(1)}, "perceiver": describe("mlm", model.config)}, path)
    return path


def test_safetensors_file_with_shared_weights_is_loaded(model, safetensors_file):
    names = safetensors.torch.load_file(safetensors_file)
    assert len(names) == len(model.state_dict()) - 1
    config = dataclasses.replace(model.config, params=safetensors_file)
    assert_same_weights(LanguageModel(config), model)
    assert_same_weights(assemble(config), model)


def test_checkpoint_is_loaded(model, checkpoint):
    config = dataclasses.replace(model.config, params=checkpoint)
    assert_same_weights(LanguageModel(config), model)
    assert_same_weights(assemble(config), model)


def test_tied_weights_stay_tied(model, safetensors_file):
    loaded = LanguageModel(dataclasses.replace(model.config, params=safetensors_file))
    assert loaded.output_adapter.embedding.weight is loaded.input_adapter.token_embedding.weight


@pytest.mark.parametrize("name", ["missing.safetensors", "missing.ckpt", "missing-folder"])
def test_missing_source_is_refused(text_config, tmp_path, name):
    refusal(text_config(params=str(tmp_path / name)))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", b""),
        ("model.safetensors", b"neither a header nor weights"),
        ("model.ckpt", b""),
        ("model.ckpt", b"neither an archive nor a pickle"),
        ("model.ckpt", b"\x80\x02}q\x00."),
    ],
)
def test_unreadable_file_is_refused(text_config, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert "not a readable" in refusal(text_config(params=str(tmp_path / name)))


@pytest.mark.parametrize("source", ["safetensors_file", "checkpoint"])
def test_truncated_file_is_refused(text_config, tmp_path, source, request):
    path = request.getfixturevalue(source)
    whole = open(path, "rb").read()  # noqa: SIM115
    with open(path, "wb") as file:
        file.write(whole[: len(whole) // 2])
    assert "not a readable" in refusal(text_config(params=path))


@pytest.mark.parametrize("source", ["safetensors_file", "checkpoint"])
def test_weights_of_other_shapes_are_refused(text_config, source, request):
    path = request.getfixturevalue(source)
    message = refusal(text_config({"num_input_channels": 20}, params=path))
    assert "does not fit the model" in message
    assert "18" in message
    assert "20" in message


def test_weights_of_another_architecture_are_refused(text_config, safetensors_file):
    fewer = text_config({"num_self_attention_layers_per_block": 1}, params=safetensors_file)
    assert "'encoder.self_attention_blocks.0.1.attention.q_proj.weight' is unknown" in refusal(fewer)
    more = text_config({"num_self_attention_layers_per_block": 3}, params=safetensors_file)
    assert "'encoder.self_attention_blocks.0.2.norm.weight' is missing" in refusal(more)


def test_unknown_format_is_refused(text_config, tmp_path):
    model = assemble(text_config())
    with pytest.raises(UserError, match=r"params='.*': not a model in a readable format \(checkpoint, .*safetensors"):
        load_params(model, str(tmp_path))


@pytest.fixture
def published(tmp_path):
    """Folder in the hub's layout with a masked language model."""
    transformers.PerceiverForMaskedLM(transformers.PerceiverConfig(**SIZES)).save_pretrained(tmp_path / "hub")
    return str(tmp_path / "hub")


def test_published_weights_must_fit_config(published):
    fitting = convert_config(transformers.PerceiverConfig(**SIZES), params=published)
    assert LanguageModel(fitting)
    other = convert_config(transformers.PerceiverConfig(**(SIZES | {"num_latents": 8})), params=published)
    message = refusal(other)
    assert "(7, 20)" in message
    assert "(8, 20)" in message


def test_weights_of_classifier_are_refused(tmp_path):
    config = transformers.PerceiverConfig(**SIZES)
    transformers.PerceiverForSequenceClassification(config).save_pretrained(tmp_path / "hub")
    message = refusal(convert_config(config, params=str(tmp_path / "hub")))
    assert "does not fit the model" in message
    assert "output_adapter.bias" in message


def test_folder_of_other_model_type_is_refused(tmp_path):
    config = transformers.BertConfig(
        vocab_size=11, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path / "hub")
    refusal(convert_config(transformers.PerceiverConfig(**SIZES), params=str(tmp_path / "hub")))


def test_folder_without_weights_is_refused(tmp_path):
    config = transformers.PerceiverConfig(**SIZES)
    config.save_pretrained(tmp_path / "hub")
    refusal(convert_config(config, params=str(tmp_path / "hub")))


def test_folder_with_broken_safetensors_is_refused(published, tmp_path):
    (tmp_path / "hub" / "model.safetensors").write_bytes(b"broken")
    refusal(convert_config(transformers.PerceiverConfig(**SIZES), params=published))


@pytest.mark.parametrize("content", [b"", b"broken", b"\x80\x02}q\x00."])
def test_folder_with_broken_pickle_is_refused(published, tmp_path, content):
    (tmp_path / "hub" / "model.safetensors").unlink()
    (tmp_path / "hub" / "pytorch_model.bin").write_bytes(content)
    refusal(convert_config(transformers.PerceiverConfig(**SIZES), params=published))
