"""Encoders without a decoder, compared with transformers' PerceiverModel on random weights."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers.models.perceiver.modeling_perceiver import (
    PerceiverClassificationDecoder,
    PerceiverImagePreprocessor,
    PerceiverTextPreprocessor,
)

from perceiver_cli.main import main
from perceiver_core import EncoderConfig, LatentsDecoderConfig, PerceiverConfig
from perceiver_plugins.classification.config import ClassificationDecoderConfig
from perceiver_plugins.huggingface.formats import HuggingFaceFormat
from perceiver_registry import UserError, assemble, read_model, to_hugging_face, write_model
from perceiver_registry.description import ModelWarning

pytestmark = pytest.mark.filterwarnings("ignore:.* does not record its input preprocessor")

BASE = {
    "vocab_size": 41,
    "max_position_embeddings": 19,
    "image_size": 13,
    "num_latents": 7,
    "d_latents": 24,
    "d_model": 16,
    "num_blocks": 2,
    "num_self_attends_per_block": 2,
    "num_self_attention_heads": 3,
    "num_cross_attention_heads": 1,
    "attention_probs_dropout_prob": 0.2,
}
FOURIER = {"num_bands": 64, "concat_pos": True, "sine_only": False}
IMAGES = {
    "image-learned": {
        "prep_type": "conv1x1",
        "spatial_downsample": 1,
        "out_channels": 256,
        "position_encoding_type": "trainable",
        "concat_or_add_pos": "concat",
        "project_pos_dim": 256,
        "trainable_position_encoding_kwargs": {"num_channels": 256, "index_dims": BASE["image_size"] ** 2},
    },
    "image-pixels": {
        "prep_type": "pixels",
        "spatial_downsample": 1,
        "fourier_position_encoding_kwargs": {**FOURIER, "max_resolution": (224, 224)},
    },
    "image-conv": {
        "prep_type": "conv",
        "spatial_downsample": 1,
        "position_encoding_type": "fourier",
        "fourier_position_encoding_kwargs": {**FOURIER, "max_resolution": (56, 56)},
    },
}
"""Options of the image preprocessors in the documentation and classes of transformers, by input adapter."""

TEXT = {"num_cross_attention_heads": 2, "cross_attention_shape_for_attention": "q", "qk_channels": 30, "v_channels": 24}


def peer(adapter: str, randomise, decoder=None, **changes) -> transformers.PerceiverModel:
    """Create transformers' encoder with the preprocessor that is equivalent to an input adapter, or without any."""
    config = transformers.PerceiverConfig(**(BASE | (TEXT if adapter == "text" else {}) | changes))
    preprocessor = {"text": PerceiverTextPreprocessor, "arrays": lambda _: None}.get(
        adapter, lambda config: PerceiverImagePreprocessor(config, **IMAGES[adapter])
    )
    return randomise(transformers.PerceiverModel(config, decoder, preprocessor(config))).eval()


def inputs(adapter: str) -> dict[str, Tensor]:
    """Return a batch: padded texts, or images of an odd size."""
    if adapter != "text":
        return {"pixel_values": torch.randn(2, 3, 13, 13 if adapter == "image-learned" else 18)}
    attention_mask = torch.ones(3, 11, dtype=torch.long)
    attention_mask[0, 7:] = 0
    attention_mask[1, :3] = 0
    return {"input_ids": torch.randint(BASE["vocab_size"], (3, 11)), "attention_mask": attention_mask}


def latents_of(hf_model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    first, *masks = batch.values()
    return hf_model(first, *masks).last_hidden_state


def relative_difference(actual: Tensor, expected: Tensor) -> float:
    return ((actual - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["text", *IMAGES])
@torch.no_grad()
def test_latents_and_round_trip_equal_those_of_transformers(adapter, randomise, tmp_path):
    original = peer(adapter, randomise)
    original.save_pretrained(tmp_path / "hub")
    with pytest.warns(ModelWarning, match="does not record its input preprocessor; the weights fit that of") as noted:
        model, description = read_model(str(tmp_path / "hub"))
    assert len(noted) == 1
    assert (description.task, description.adapters()) == ("embedding", (adapter, "latents"))

    batch = inputs(adapter)
    expected = latents_of(original, batch)
    for found in (model(batch), model.encode(batch), model.embed(batch, pool="none")):
        assert relative_difference(found, expected) < 1e-5
    if adapter == "text":
        unmasked = batch | {"attention_mask": torch.ones(3, 11)}
        assert relative_difference(model(unmasked), expected) > 1e-3

    randomise(model)
    changed = to_hugging_face(model)
    assert isinstance(changed, transformers.PerceiverModel)
    assert relative_difference(latents_of(changed, batch), model(batch)) < 1e-5
    assert relative_difference(model(batch), expected) > 1e-2
    changed.save_pretrained(tmp_path / "back")
    # Without a preprocessor, transformers' encoder reads the adapted input.
    loaded = transformers.AutoModel.from_pretrained(tmp_path / "back").eval()
    assert loaded.config.architectures == ["PerceiverModel"]
    adapted = model.input_adapter(batch)
    mask = {} if adapted.pad_mask is None else {"attention_mask": ~adapted.pad_mask}
    assert relative_difference(loaded(adapted.x, **mask).last_hidden_state, model(batch)) < 1e-5


@pytest.mark.slow
def test_written_folder_is_verified_and_read_again(randomise, tmp_path):
    peer("text", randomise).save_pretrained(tmp_path / "hub")
    loaded = read_model(str(tmp_path / "hub"))
    assert write_model(loaded, str(tmp_path / "back")) < 1e-5  # the first format that can represent the model
    again = read_model(str(tmp_path / "back"), "huggingface").model
    state = loaded.model.state_dict()
    assert again.config == loaded.model.config
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())


def test_models_in_memory_are_converted(randomise):
    original = peer("image-pixels", randomise)
    with pytest.warns(ModelWarning, match="^model: PerceiverModel does not record"):
        model = HuggingFaceFormat().from_hugging_face(original)
    batch = inputs("image-pixels")
    with torch.no_grad():
        assert relative_difference(model(batch), latents_of(original, batch)) < 1e-5


def test_encoder_initialises_a_classifier(randomise, tmp_path):
    original = peer("text", randomise)
    original.save_pretrained(tmp_path)
    config = read_model(str(tmp_path)).model.config
    decoder = ClassificationDecoderConfig(num_classes=3, num_cross_attention_heads=1)
    encoder = replace(config.encoder, params=str(tmp_path))
    model = assemble(replace(config, encoder=encoder, decoder=decoder)).eval()
    batch = inputs("text")
    with torch.no_grad():
        assert relative_difference(model.encode(batch), latents_of(original, batch)) < 1e-5


@pytest.mark.parametrize("adapter", ["arrays", "decoder", "other-preprocessor"])
def test_unknown_parts_are_refused(adapter, randomise, tmp_path):
    config = transformers.PerceiverConfig(**BASE)
    positions = {"num_channels": config.d_latents, "index_dims": 1}
    decoder = PerceiverClassificationDecoder(
        config, num_channels=config.d_latents, trainable_position_encoding_kwargs=positions
    )
    reason, model = {
        "arrays": ("its inputs are arrays of 16 channels, which no input adapter", peer("arrays", randomise)),
        "decoder": ("it has a decoder, whose class is not recorded", peer("text", randomise, decoder)),
        "other-preprocessor": ("its input preprocessor is not recorded", peer("text", randomise)),
    }[adapter]
    model.save_pretrained(tmp_path)
    if adapter == "other-preprocessor":
        transformers.PerceiverConfig(**{**BASE, "d_model": 8}, architectures=["PerceiverModel"]).save_pretrained(
            tmp_path
        )
    with pytest.raises(UserError, match=f"^{tmp_path}: PerceiverModel cannot be converted: {reason}.*[^\n]$"):
        HuggingFaceFormat().description(str(tmp_path))


def test_damaged_and_missing_weights_are_reported(randomise, tmp_path):
    peer("text", randomise).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=f"^{tmp_path}: cannot load a Perceiver "):
        HuggingFaceFormat().description(str(tmp_path))
    file.unlink()
    with pytest.raises(UserError, match=f"^{tmp_path}: model.safetensors not found "):
        HuggingFaceFormat().description(str(tmp_path))


@torch.no_grad()
def test_positions_select_latents(randomise, tmp_path):
    peer("text", randomise).save_pretrained(tmp_path)
    model, batch = read_model(str(tmp_path)).model, inputs("text")
    latents = model.encode(batch)
    positions = torch.tensor([[3, 0], [6, 6], [1, 2]])
    assert torch.equal(model(batch, positions), latents[torch.arange(3)[:, None], positions])
    mask = torch.rand(3, 7) < 0.5
    assert torch.equal(model(batch, mask), latents[mask])
    output, attentions = model(batch, positions, return_attention=True)
    assert torch.equal(attentions.decoder[:, 0] @ latents, output)


def test_numbers_of_latents_must_be_equal():
    with pytest.raises(ValueError, match=r"^LatentsDecoderConfig.num_latents=5: must equal num_latents=7 of the model"):
        PerceiverConfig(EncoderConfig(), LatentsDecoderConfig(num_latents=5), num_latents=7)


@pytest.mark.slow
def test_command_embeds_and_refuses_other_commands(capsys, randomise, tmp_path):
    original = peer("text", randomise, vocab_size=262)
    original.save_pretrained(tmp_path / "hub")
    transformers.PerceiverTokenizer().save_pretrained(tmp_path / "hub")
    source = f"--ckpt_path={tmp_path / 'hub'}"
    capsys.readouterr()
    with pytest.warns(ModelWarning, match="does not record its input preprocessor") as noted:
        assert main(["embed", source, "a text", "another", "--format=json", "--trainer.accelerator=cpu"]) == 0
    assert len(noted) == 1
    tokens = transformers.PerceiverTokenizer()(["a text", "another"], padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = original(tokens["input_ids"], tokens["attention_mask"]).last_hidden_state.mean(1)
    found = torch.tensor([each["embedding"] for each in json.loads(capsys.readouterr().out)])
    assert relative_difference(found, expected) < 1e-5

    refusals = {
        ("predict", source, "a text"): "this task has no predictor (perceiver embed embeds inputs)",
        ("validate", source): "has neither training nor metrics (perceiver embed uses its models)",
        ("fit", "--task=embedding"): "has neither training nor metrics (perceiver embed uses its models)",
    }
    for command, reason in refusals.items():
        assert main(command) == 2
        assert capsys.readouterr().err.splitlines()[-1] == f"perceiver: --task=embedding: {reason}"
