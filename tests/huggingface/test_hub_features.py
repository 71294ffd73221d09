"""Latents in transformers, compared with ``encode`` and Hugging Face's PerceiverModel on random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import AutoModel, pipeline

import perceiver_plugins.huggingface.auto  # noqa: F401
from perceiver_core import PerceiverARConfig
from perceiver_plugins.generation import NextTokenDecoderConfig, TokenEncoderConfig
from perceiver_plugins.huggingface import ZooConfig, ZooModel, model_class
from perceiver_registry import ModelDescription, from_hugging_face, load_model

pytestmark = pytest.mark.usefixtures("quiet_transformers")

SIZES: dict[str, Any] = {
    "num_latents": 5,
    "d_latents": 12,
    "num_self_attends_per_block": 2,
    "num_blocks": 2,
    "num_self_attention_heads": 3,
    "num_cross_attention_heads": 1,
    "d_model": 16,
    "max_position_embeddings": 11,
    "vocab_size": 262,
    "image_size": 6,
    "qk_channels": None,
    "v_channels": None,
}


def token_batch() -> dict[str, Tensor]:
    lengths = torch.tensor([[11], [6], [1]])
    return {"input_ids": torch.randint(262, (3, 11)), "attention_mask": (torch.arange(11) < lengths).long()}


def published(architecture: str) -> tuple[Any, dict[str, Tensor], dict[str, Tensor]]:
    """Return a model of Hugging Face with random weights, its inputs, and the equivalent batch of our model."""
    model = getattr(transformers, architecture)(transformers.PerceiverConfig(**SIZES, num_labels=4))
    if "Image" in architecture:
        pixel_values = torch.randn(2, 3, 6, 6)
        return model, {"inputs": pixel_values}, {"pixel_values": pixel_values}
    batch = token_batch()
    return model, {"inputs": batch["input_ids"], "attention_mask": batch["attention_mask"]}, batch


@pytest.mark.parametrize(
    "architecture",
    ["PerceiverForMaskedLM", "PerceiverForSequenceClassification", "PerceiverForImageClassificationLearned"],
)
def test_latents_are_those_of_hugging_face(architecture: str, randomise: Callable[[nn.Module], nn.Module]) -> None:
    original, inputs, batch = published(architecture)
    randomise(original).eval()
    model = from_hugging_face(original)
    with torch.no_grad():
        expected = original.perceiver(**inputs, output_hidden_states=True)
        latents = model.encode(batch)
        config = ZooConfig.from_description(ModelDescription.create("classification", model.config))
        wrapped = ZooModel(config)
        wrapped.perceiver.load_state_dict(model.state_dict())
        output = wrapped.eval()(**batch, output_hidden_states=True)
    torch.testing.assert_close(latents, expected.last_hidden_state, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.embed(batch), expected.last_hidden_state.mean(dim=1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output.last_hidden_state, latents)
    for ours, theirs in zip(output.hidden_states, expected.hidden_states, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert latents.std() > 0.1


def test_auto_model_of_a_causal_model_returns_its_latents(
    randomise: Callable[[nn.Module], nn.Module], tmp_path: Path
) -> None:
    encoder = TokenEncoderConfig(
        vocab_size=19,
        num_input_channels=12,
        num_self_attention_layers_per_block=2,
        num_self_attention_heads=3,
        num_cross_attention_heads=3,
    )
    config = PerceiverARConfig(encoder, NextTokenDecoderConfig(), num_latents=4, num_latent_channels=12, max_seq_len=9)
    zoo_config = ZooConfig.from_description(ModelDescription.create("clm", config))
    original = randomise(model_class(config)(zoo_config)).eval()
    original.save_pretrained(tmp_path)
    model = AutoModel.from_pretrained(tmp_path)
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[1, :5] = 0
    batch = {"input_ids": torch.randint(19, (2, 7)), "attention_mask": mask}
    with torch.no_grad():
        output = model(**batch, output_hidden_states=True)
        expected = original.perceiver.encode(batch)
    assert type(model) is ZooModel
    assert output.last_hidden_state.shape == (2, 4, 12)
    torch.testing.assert_close(output.last_hidden_state, expected)
    torch.testing.assert_close(original.perceiver.output_norm(output.hidden_states[-1])[0], expected[0])


def test_pipelines_return_latents(text_classifier: Any, image_classifier: Any) -> None:
    for tag, exported in (("feature-extraction", text_classifier), ("image-feature-extraction", image_classifier)):
        extract: Any = pipeline(tag, model=str(exported.folder), device="cpu")
        model = load_model(str(exported.checkpoint)).eval()
        for source in exported.inputs:
            batch = extract.preprocess(source)
            with torch.no_grad():
                expected = model.encode(dict(batch))
            found = extract(source, return_tensors=True)
            assert found.shape == (1, 4, 16)
            torch.testing.assert_close(found, expected)
