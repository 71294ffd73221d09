"""Exact conversion of Hugging Face's optical flow model in both directions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import transformers
from torch import Tensor, nn

from perceiver_core import PerceiverIO
from perceiver_plugins.huggingface.conversion_table import conversion_at
from perceiver_plugins.huggingface.flow import OPTICAL_FLOW, convert_config, patched_inputs
from perceiver_registry import assemble, registry

BASE = {
    "num_latents": 7,
    "d_latents": 12,
    "num_blocks": 1,
    "num_self_attends_per_block": 2,
    "num_self_attention_heads": 3,
    "num_cross_attention_heads": 1,
    "train_size": [8, 12],
    "attention_probs_dropout_prob": 0.2,
}
VARIANTS = {
    "published-shape": {},
    "wide-and-several-blocks": {
        "num_blocks": 3,
        "self_attention_widening_factor": 2,
        "cross_attention_widening_factor": 3,
    },
    "two-heads-q-channels": {
        "cross_attention_shape_for_attention": "q",
        "num_cross_attention_heads": 2,
        "num_self_attention_heads": 4,
    },
    "other-qk": {"qk_channels": 24, "v_channels": 12, "num_cross_attention_heads": 3},
    "other-qk-q-channels": {"qk_channels": 6, "v_channels": 12, "cross_attention_shape_for_attention": "q"},
    "qk-of-the-latents": {"qk_channels": 12},
    "no-residual": {"use_query_residual": False, "train_size": [5, 9], "num_latents": 1},
    "seven-heads": {"num_cross_attention_heads": 7, "d_latents": 14, "num_self_attention_heads": 7},
}
PUBLISHED = {
    "num_latents": 2048,
    "d_latents": 512,
    "num_blocks": 1,
    "num_self_attends_per_block": 24,
    "num_self_attention_heads": 16,
    "num_cross_attention_heads": 1,
}


def relative_difference(actual: Tensor, expected: Tensor) -> float:
    return ((actual - expected).abs().max() / expected.abs().max()).item()


def flow_of(model: nn.Module, frames: Tensor) -> Tensor:
    """Compute the flow (b, height, width, 2) with either model."""
    if isinstance(model, PerceiverIO):
        return model({"frames": frames}).unflatten(1, frames.shape[3:])
    return model(inputs=patched_inputs(frames)).logits


@pytest.fixture
def peer(randomise):
    """Factory of Hugging Face models with random parameters and the configuration BASE."""

    def peer(**changes) -> nn.Module:
        config = transformers.PerceiverConfig(**(BASE | changes))
        return randomise(transformers.PerceiverForOpticalFlow(config)).eval()

    return peer


@pytest.fixture(params=list(VARIANTS))
def theirs(request, peer) -> nn.Module:
    return peer(**VARIANTS[request.param])


def random_frames(model: nn.Module) -> Tensor:
    frames = torch.randn(2, 2, 3, *model.config.train_size)
    return frames + 3 * torch.randn(2, 2, 3, 1, 1)


@torch.no_grad()
def test_flow_equals_hugging_face(theirs):
    ours = OPTICAL_FLOW.from_hugging_face(theirs)
    frames = random_frames(theirs)
    expected = flow_of(theirs, frames)
    assert relative_difference(flow_of(ours, frames), expected) < 1e-5
    assert relative_difference(flow_of(ours, frames.flip(0)), expected) > 1e-3  # the output depends on the frames


@torch.no_grad()
def test_conversion_round_trip(theirs, randomise):
    frames = random_frames(theirs)
    ours = randomise(OPTICAL_FLOW.from_hugging_face(theirs))
    changed = OPTICAL_FLOW.to_hugging_face(ours)
    assert isinstance(changed, transformers.PerceiverForOpticalFlow)
    assert relative_difference(flow_of(changed, frames), flow_of(ours, frames)) < 1e-5
    assert relative_difference(flow_of(changed, frames), flow_of(theirs, frames)) > 1e-3  # other weights
    back = OPTICAL_FLOW.from_hugging_face(changed)
    assert back.config == ours.config
    assert all(torch.equal(value, back.state_dict()[name]) for name, value in ours.state_dict().items())


def test_all_parameters_are_converted(theirs):
    config = convert_config(theirs.config)
    names = list(OPTICAL_FLOW.pairs(config))
    assert len(names) == len({*names})
    assert {ours for ours, _ in names} == set(assemble(config).state_dict())
    assert {hf_name for _, hf_name in names} == set(theirs.state_dict())


def test_gradients_equal_hugging_face(peer):
    theirs = peer()
    ours = OPTICAL_FLOW.from_hugging_face(theirs)
    frames = random_frames(theirs)
    for model in (theirs, ours):
        flow_of(model, frames).square().mean().backward()
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    scale = max(gradient.abs().max() for gradient in expected.values())
    parameters = dict(ours.named_parameters())
    for name, hf_name in OPTICAL_FLOW.pairs(ours.config):
        torch.testing.assert_close(parameters[name].grad / scale, expected[hf_name] / scale, atol=1e-6, rtol=1e-3)


def test_published_config_has_the_published_number_of_parameters():
    spec = registry().get("model", "optical-flow-perceiver").spec
    with torch.device("meta"):
        theirs = transformers.PerceiverForOpticalFlow(transformers.PerceiverConfig(**PUBLISHED))
        ours = assemble(convert_config(theirs.config))
    for model in (ours, theirs):
        assert sum(parameter.numel() for parameter in model.parameters()) == 41_057_134 == spec.num_parameters
    named = {key: value for key, value in spec.config.items() if "." in key}
    for key, value in named.items():
        part, _, field = key.partition(".")
        found = getattr(getattr(ours.config, part), field)
        assert (list(found) if isinstance(found, tuple) else found) == value, key
    assert (ours.config.num_latents, ours.config.num_latent_channels) == (2048, 512)


# Details of Hugging Face's implementation


@torch.no_grad()
def test_positions_use_the_training_size_for_all_inputs(peer):
    theirs = peer(train_size=[8, 12])
    frames = torch.randn(1, 2, 3, 6, 16)  # the same number of pixels, as their code requires
    ours = OPTICAL_FLOW.from_hugging_face(theirs)
    expected = flow_of(theirs, frames).flatten(1, 2)
    assert relative_difference(ours({"frames": frames}), expected) < 1e-5
    other = replace(ours.config, encoder=replace(ours.config.encoder, image_size=(6, 16)))
    wrong = assemble(other).eval()
    wrong.load_state_dict(ours.state_dict())
    assert relative_difference(wrong({"frames": frames}), expected) > 1e-3


@torch.no_grad()
def test_decoder_has_no_residual_and_divides_output_by_100(peer):
    theirs = peer(use_query_residual=True)
    ours = OPTICAL_FLOW.from_hugging_face(theirs)
    assert (ours.config.encoder.cross_attention_residual, ours.config.decoder.cross_attention_residual) == (True, False)
    frames = random_frames(theirs)
    expected = flow_of(theirs, frames)
    ours.output_adapter.rescale_factor = 1.0
    assert relative_difference(flow_of(ours, frames) / 100, expected) < 1e-5
    ours.output_adapter.rescale_factor = 100.0
    ours.decoder.cross_attention_layer.attention_residual = True
    assert relative_difference(flow_of(ours, frames), expected) > 1e-3


def test_decoder_channels_follow_the_encoder_setting(peer):
    channels = {
        setting: convert_config(peer(cross_attention_shape_for_attention=setting).config).decoder
        for setting in ("q", "kv")
    }
    assert [decoder.num_cross_attention_qk_channels for decoder in channels.values()] == [322, 12]
    assert all(decoder.num_cross_attention_heads == 1 for decoder in channels.values())


def test_dropout_and_initialisation_are_converted():
    config = convert_config(transformers.PerceiverConfig(**BASE, initializer_range=0.3))
    assert (config.encoder.dropout, config.decoder.dropout) == (0.2, 0.2)
    assert (config.encoder.init_scale, config.decoder.init_scale, config.init) == (0.3, 0.3, "normal")


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("encoder", {"patch_size": 5}, "encoder.patch_size is 5, must be 3"),
        ("encoder", {"num_patch_channels": 32}, "encoder.num_patch_channels is 32, must be 64"),
        ("encoder", {"num_frequency_bands": 8}, "encoder.num_frequency_bands is 8, must be 64"),
        ("encoder", {"num_cross_attention_layers": 2, "num_self_attention_blocks": 2}, "num_cross_attention_layers"),
        ("decoder", {"num_cross_attention_heads": 2}, "decoder.num_cross_attention_heads is 2, must be 1"),
        ("decoder", {"cross_attention_residual": True}, "decoder.cross_attention_residual is True"),
        ("decoder", {"rescale_factor": 1.0}, "decoder.rescale_factor is 1.0, must be 100.0"),
        ("decoder", {"num_cross_attention_qk_channels": 20}, "decoder.num_cross_attention_qk_channels is 20"),
        ("decoder", {"num_cross_attention_v_channels": 20}, "decoder.num_cross_attention_v_channels is 20"),
    ],
)
def test_config_without_hugging_face_equivalent_is_rejected(part, changes, message):
    config = convert_config(transformers.PerceiverConfig(**BASE))
    changed = replace(config, **{part: replace(getattr(config, part), **changes)})
    with pytest.raises(ValueError, match=message):
        OPTICAL_FLOW.hugging_face_config(changed)


def test_other_activation_is_rejected():
    with pytest.raises(ValueError, match="hidden_act='relu'"):
        convert_config(transformers.PerceiverConfig(**BASE, hidden_act="relu"))


# Folders in the hub's layout


@torch.no_grad()
def test_folder_in_hub_layout_is_loaded(peer, tmp_path):
    theirs = peer(num_blocks=2)
    theirs.save_pretrained(tmp_path)
    conversion, found = conversion_at(str(tmp_path))
    config = conversion.convert_config(found)
    assert config.params == str(tmp_path)
    frames = random_frames(theirs)
    assert relative_difference(flow_of(assemble(config).eval(), frames), flow_of(theirs, frames)) < 1e-5
