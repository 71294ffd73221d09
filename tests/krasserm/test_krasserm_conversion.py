"""Outputs of converted models equal those of perceiver-io."""

from __future__ import annotations

import peer
import pytest
import torch
import transformers
from torch import nn

from perceiver_core import PerceiverIO
from perceiver_plugins.huggingface.flow import patched_inputs
from perceiver_plugins.image.config import ImagePixelsEncoderConfig
from perceiver_registry import UserError, assemble, config_from_dict, read_model, to_hugging_face
from perceiver_registry.formats import open_source

SHARED = {
    "encoder": {"num_cross_attention_layers": 2, "num_self_attention_blocks": 3}
    | {"first_cross_attention_layer_shared": True, "cross_attention_widening_factor": 3}
}
UNSHARED = {
    "encoder": {"num_cross_attention_layers": 3, "num_self_attention_blocks": 3}
    | {"first_self_attention_block_shared": False, "self_attention_widening_factor": 2},
    "decoder": {"cross_attention_widening_factor": 2},
}
CHANNELS = {
    "encoder": {"num_cross_attention_qk_channels": 6, "num_cross_attention_v_channels": 10}
    | {"num_cross_attention_heads": 2, "num_self_attention_qk_channels": 20, "num_self_attention_v_channels": 28},
    "decoder": {"num_cross_attention_qk_channels": 9, "num_cross_attention_v_channels": 15}
    | {"num_cross_attention_heads": 3},
    "num_latents": 3,
    "num_latent_channels": 20,
}
QK_CHANNELS = {"encoder": {"num_cross_attention_qk_channels": 8, "num_self_attention_qk_channels": 8}}


def with_decoder(variant: dict, **values) -> dict:
    return variant | {"decoder": variant.get("decoder", {}) | values}


# Layers and the residual connection are converted by the same code for all kinds, default channels by kind.
VARIANTS = {
    **{(kind, "small"): {} for kind in peer.KINDS},
    ("text-classifier", "shared"): SHARED,
    ("masked-language-model", "unshared"): UNSHARED,
    ("image-classifier", "unshared"): UNSHARED,
    ("image-classifier", "channels"): CHANNELS,
    ("optical-flow", "channels"): CHANNELS,
    ("text-classifier", "qk-channels"): QK_CHANNELS,
    ("image-classifier", "qk-channels"): QK_CHANNELS,
    ("optical-flow", "qk-channels"): QK_CHANNELS,
    ("masked-language-model", "no-residual"): {"decoder": {"cross_attention_residual": False}, "num_latents": 1},
    ("optical-flow", "residual"): {"decoder": {"cross_attention_residual": True}},
    ("masked-language-model", "own-output"): {"decoder": {"num_output_query_channels": 10}},
    ("masked-language-model", "own-output-channels"): with_decoder(CHANNELS, num_output_query_channels=21),
    ("text-classifier", "three-queries"): {"decoder": {"num_output_queries": 3}},
    ("image-classifier", "grey"): {"encoder": {"image_shape": [7, 5, 1], "num_frequency_bands": 2}},
    ("image-classifier", "ignored-queries"): {"decoder": {"num_output_queries": 3}},
    ("optical-flow", "pixels"): {
        "encoder": {"num_patch_input_channels": 3, "image_shape": [6, 4]},
        "decoder": {"image_shape": [6, 4], "num_cross_attention_heads": 3, "rescale_factor": 100.0},
    },
    ("optical-flow", "large-patches"): {"encoder": {"num_patch_input_channels": 75}},
}


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS, ids="-".join)
def test_outputs_equal_the_oracle(variant, tmp_path):
    kind, _ = variant
    config = peer.model_config(kind, **VARIANTS[variant])
    state = peer.random_state(config)
    model, _ = read_model(peer.save_folder(tmp_path / "model", kind, config, state))
    assert not model.training
    inputs, batch = peer.random_inputs(config)
    expected = peer.outputs(config, state, **inputs)
    assert relative_to(model, batch, expected) < 1e-5
    assert peer.relative_difference(expected.flip(0), expected) > 1e-3  # outputs depend on inputs
    num_weights = sum(parameter.numel() for parameter in model.parameters())
    assert num_weights == sum(value.numel() for name, value in state.items() if "position_encoding" not in name)


def relative_to(model: PerceiverIO, batch: dict, expected: torch.Tensor) -> float:
    actual = model(batch)
    assert actual.shape == expected.shape
    return peer.relative_difference(actual, expected)


@torch.no_grad()
@pytest.mark.parametrize("kind", peer.KINDS)
def test_outputs_of_checkpoints_equal_the_oracle(kind, tmp_path, monkeypatch):
    config = peer.model_config(kind)
    state = peer.random_state(config)
    model, _ = read_model(peer.save_checkpoint(tmp_path / "best.ckpt", monkeypatch, config, state))
    inputs, batch = peer.random_inputs(config)
    assert relative_to(model, batch, peer.outputs(config, state, **inputs)) < 1e-5


@pytest.mark.parametrize("kind", peer.KINDS)
def test_description_and_weights_equal_those_of_the_model(kind, tmp_path):
    config = peer.model_config(kind, **UNSHARED)
    source = peer.save_folder(tmp_path / "model", kind, config, peer.random_state(config), safe=False)
    model, description = read_model(source)
    form = open_source(source).entry.resolve("format")()
    assert open_source(source).entry.name == "krasserm"
    assert form.description(source) == description
    assert config_from_dict(description.model) == model.config
    weights = form.weights(source)
    assert weights.keys() == model.state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    # Fields of the original training are not converted.
    assert not model.config.encoder.freeze
    assert model.config.encoder.params is None


@pytest.mark.parametrize("kind", ["image-classifier", "optical-flow"])
def test_stored_positions_are_checked_and_optional(kind, tmp_path):
    config = peer.model_config(kind)
    state = peer.random_state(config)
    (name,) = (name for name in state if "position_encoding" in name)
    state[name] = state[name].half().float()
    read_model(peer.save_folder(tmp_path / "rounded", kind, config, state))
    without = {each: value for each, value in state.items() if each != name}
    read_model(peer.save_folder(tmp_path / "without", kind, config, without))
    other_order = state | {name: state[name].flip(0)}
    with pytest.raises(UserError, match="other: its stored Fourier positions differ from those of its config"):
        read_model(peer.save_folder(tmp_path / "other", kind, config, other_order))


def hugging_face_layer(theirs: nn.Module, ours: str, attention: str) -> peer.State:
    """Return the weights of a layer of Hugging Face's model with perceiver-io's names."""
    module = theirs.attention.self
    modules = {
        f"{attention}.attention.q_proj": module.query,
        f"{attention}.attention.k_proj": module.key,
        f"{attention}.attention.v_proj": module.value,
        f"{attention}.attention.o_proj": theirs.attention.output.dense,
        f"{ours}.1.module.0": theirs.layernorm,
        f"{ours}.1.module.1": theirs.mlp.dense1,
        f"{ours}.1.module.3": theirs.mlp.dense2,
    }
    if isinstance(module.layernorm2, nn.LayerNorm):
        modules |= {
            f"{attention}.q_norm": module.layernorm1,
            f"{attention}.kv_norm": module.layernorm2,
        }
    else:
        modules |= {f"{attention}.norm": module.layernorm1}
    return {f"{name}.{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}


def hugging_face_state(model: nn.Module, head: nn.Module, residual: bool) -> peer.State:
    """Return the weights of encoder and decoder with perceiver-io's names."""
    perceiver = model.perceiver
    state = {"0.latent_provider._query": perceiver.embeddings.latents}
    state |= hugging_face_layer(perceiver.encoder.cross_attention, "0.cross_attn_1", "0.cross_attn_1.0.module")
    for i, layer in enumerate(perceiver.encoder.self_attends):
        state |= hugging_face_layer(layer, f"0.self_attn_1.{i}", f"0.self_attn_1.{i}.0.module")
    attention = "1.cross_attn.0.module" if residual else "1.cross_attn.0"
    return state | hugging_face_layer(head.decoding_cross_attention, "1.cross_attn", attention)


def encoder_of(config: transformers.PerceiverConfig) -> dict:
    return {
        "num_cross_attention_heads": config.num_cross_attention_heads,
        "num_self_attention_heads": config.num_self_attention_heads,
        "num_self_attention_layers_per_block": config.num_self_attends_per_block,
        "num_self_attention_blocks": config.num_blocks,
    }


SMALL = {"num_latents": 5, "d_latents": 16, "num_blocks": 2, "num_self_attends_per_block": 2}


@pytest.fixture
def published(tmp_path):
    """Function that saves Hugging Face's model as perceiver-io publishes it, and reads it."""

    def published(kind: str, model: nn.Module, head: nn.Module, state: peer.State, **config) -> PerceiverIO:
        whole = peer.model_config(kind, **config, num_latents=5, num_latent_channels=16)
        common = hugging_face_state(model, head, whole["decoder"]["cross_attention_residual"])
        state = {name: value.detach().clone() for name, value in (common | state).items()}
        return read_model(peer.save_folder(tmp_path / "published", kind, whole, state)).model

    return published


def assert_converts_to(theirs: nn.Module, model: PerceiverIO) -> None:
    """Check that the converted model converts to the original model of Hugging Face."""
    state = to_hugging_face(model).state_dict()
    assert state.keys() == theirs.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in theirs.state_dict().items())


@torch.no_grad()
def test_language_model_equals_hugging_faces(published, randomise):
    config = transformers.PerceiverConfig(
        **SMALL, d_model=24, qk_channels=16, v_channels=16, max_position_embeddings=19, num_cross_attention_heads=4
    )
    theirs = randomise(transformers.PerceiverForMaskedLM(config)).eval()
    inputs, decoder = theirs.perceiver.input_preprocessor, theirs.perceiver.decoder
    model = published(
        "masked-language-model",
        theirs,
        decoder,
        {
            "0.input_adapter.txt_embedding.weight": inputs.embeddings.weight,
            "0.input_adapter.pos_embedding.weight": inputs.position_embeddings.weight,
            "1.output_query_provider._query": decoder.output_position_encodings.position_embeddings,
            "1.output_adapter.bias": theirs.embedding_decoder.bias,
        },
        encoder={"max_seq_len": 19, "num_input_channels": 24, **encoder_of(config)}
        | {"num_cross_attention_qk_channels": 16, "num_cross_attention_v_channels": 16},
        decoder={"max_seq_len": 19, "num_cross_attention_heads": 8, "num_cross_attention_qk_channels": 256}
        | {"num_cross_attention_v_channels": 24, "cross_attention_residual": False},
    )
    ids, mask = torch.randint(262, (2, 19)), (torch.arange(19) < torch.tensor([[19], [11]])).long()
    expected = theirs(inputs=ids, attention_mask=mask).logits
    assert relative_to(model, {"input_ids": ids, "attention_mask": mask}, expected) < 1e-5
    assert_converts_to(theirs, model)


@pytest.mark.slow
@torch.no_grad()
def test_image_classifier_equals_hugging_faces(published, randomise):
    config = transformers.PerceiverConfig(**SMALL, num_labels=6, num_cross_attention_heads=1)
    theirs = randomise(transformers.PerceiverForImageClassificationFourier(config)).eval()
    decoder = theirs.perceiver.decoder.decoder
    model = published(
        "image-classifier",
        theirs,
        decoder,
        {
            "1.output_query_provider._query": decoder.output_position_encodings.position_embeddings,
            "1.output_adapter.linear.weight": decoder.final_layer.weight,
            "1.output_adapter.linear.bias": decoder.final_layer.bias,
        },
        encoder={"image_shape": [224, 224, 3], "num_frequency_bands": 64, **encoder_of(config)},
        decoder={"num_classes": 6, "num_output_query_channels": 16, "num_cross_attention_heads": 1},
    )
    pixels = torch.randn(1, 3, 224, 224)
    assert relative_to(model, {"pixel_values": pixels}, theirs(inputs=pixels).logits) < 1e-5
    assert isinstance(model.config.encoder, ImagePixelsEncoderConfig)
    assert model.config.encoder.num_cross_attention_qk_channels == 261
    assert_converts_to(theirs, model)


@torch.no_grad()
def test_optical_flow_equals_hugging_faces(published, randomise):
    config = transformers.PerceiverConfig(**SMALL, train_size=[8, 12], num_cross_attention_heads=1)
    theirs = randomise(transformers.PerceiverForOpticalFlow(config)).eval()
    inputs, decoder = theirs.perceiver.input_preprocessor, theirs.perceiver.decoder.decoder
    model = published(
        "optical-flow",
        theirs,
        decoder,
        {
            "0.input_adapter.linear.weight": inputs.conv_after_patches.weight,
            "0.input_adapter.linear.bias": inputs.conv_after_patches.bias,
            "1.output_adapter.linear.weight": decoder.final_layer.weight,
            "1.output_adapter.linear.bias": decoder.final_layer.bias,
        },
        encoder={"image_shape": [8, 12], "num_patch_hidden_channels": 64, "num_frequency_bands": 64}
        | encoder_of(config),
        decoder={"image_shape": [8, 12], "num_cross_attention_heads": 1, "rescale_factor": 100.0}
        | {"num_cross_attention_qk_channels": 16, "num_cross_attention_v_channels": 16},
    )
    frames = torch.randn(2, 2, 3, 8, 12)
    expected = theirs(inputs=patched_inputs(frames)).logits.flatten(1, 2)
    assert relative_to(model, {"frames": frames}, expected) < 1e-5
    assert_converts_to(theirs, model)


def published_shape(kind: str) -> peer.Config:
    """Return the configuration of a model that perceiver-io publishes."""
    common = {"num_self_attention_heads": 8, "num_self_attention_blocks": 1}
    if kind == "masked-language-model":
        return peer.model_config(
            kind,
            {"max_seq_len": 2048, "num_input_channels": 768, "num_cross_attention_heads": 8, **common}
            | {"num_cross_attention_qk_channels": 256, "num_cross_attention_v_channels": 1280}
            | {"num_self_attention_qk_channels": 256, "num_self_attention_v_channels": 1280}
            | {"num_self_attention_layers_per_block": 26},
            {"max_seq_len": 2048, "num_cross_attention_heads": 8, "cross_attention_residual": False}
            | {"num_cross_attention_qk_channels": 256, "num_cross_attention_v_channels": 768},
            num_latents=256,
            num_latent_channels=1280,
        )
    if kind == "image-classifier":
        return peer.model_config(
            kind,
            {"image_shape": [224, 224, 3], "num_frequency_bands": 64, "num_cross_attention_heads": 1, **common}
            | {"num_self_attention_layers_per_block": 6, "num_self_attention_blocks": 8},
            {"num_classes": 1000, "num_output_query_channels": 1024, "num_cross_attention_heads": 1},
            num_latents=512,
            num_latent_channels=1024,
        )
    return peer.model_config(
        kind,
        {"image_shape": [368, 496], "num_patch_hidden_channels": 64, "num_frequency_bands": 64, **common}
        | {"num_cross_attention_heads": 1, "num_self_attention_heads": 16, "num_self_attention_layers_per_block": 24},
        {"image_shape": [368, 496], "num_cross_attention_heads": 1, "rescale_factor": 100.0}
        | {"num_cross_attention_qk_channels": 512, "num_cross_attention_v_channels": 512},
        num_latents=2048,
        num_latent_channels=512,
    )


@pytest.mark.parametrize(
    ("kind", "number"),
    [("masked-language-model", 201_108_230), ("image-classifier", 48_440_627), ("optical-flow", 41_057_134)],
)
def test_published_shapes_have_the_published_number_of_parameters(kind, number, tmp_path):
    source = peer.save_folder(tmp_path / "model", kind, published_shape(kind), {})
    description = open_source(source).entry.resolve("format")().description(source)
    with torch.device("meta"):
        model = assemble(config_from_dict(description.model))
    assert sum(parameter.numel() for parameter in model.parameters()) == number
