"""Exact conversion of Hugging Face's multimodal autoencoder in both directions."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import transformers
from torch import Tensor

from perceiver_plugins.huggingface.conversion_table import conversion_at
from perceiver_plugins.huggingface.multimodal import convert_config
from perceiver_plugins.multimodal import MULTIMODAL, decode, reconstruct
from perceiver_registry import assemble, config_from_dict, config_to_dict

VARIANTS = {
    "base": {},
    # Settings of the published model, smaller.
    "published": {
        "num_latents": 14,
        "d_latents": 32,
        "num_self_attends_per_block": 3,
        "num_self_attention_heads": 8,
        "audio_samples_per_frame": 32,
        "samples_per_patch": 16,
        "num_labels": 700,
        "image_size": 2,
        "output_shape": [1, 3, 8, 8],
        "output_num_channels": 32,
    },
    "more-frames-than-resolved": {"output_shape": [1, 5, 12, 4], "image_size": 9, "num_frames": 2},
    "several-blocks-and-heads": {
        "num_blocks": 3,
        "num_cross_attention_heads": 3,
        "qk_channels": 24,
        "v_channels": 12,
        "self_attention_widening_factor": 3,
        "cross_attention_widening_factor": 2,
    },
    "q-channels-no-residual": {"cross_attention_shape_for_attention": "q", "use_query_residual": False},
    "latents-of-the-querys-width": {"d_latents": 387, "_label_trainable_num_channels": 11},
    "qk-channels-of-the-latents": {"qk_channels": 12, "num_latents": 1},
    "many-classes": {"num_labels": 500, "samples_per_patch": 8},
}


def relative_difference(actual: Tensor, expected: Tensor) -> float:
    return ((actual - expected).abs().max() / expected.abs().max()).item()


def batch_for(config: transformers.PerceiverConfig, size: int = 2) -> dict[str, Tensor]:
    num_frames, height, width = config.output_shape[1:]
    return {
        "input_values": torch.randn(size, config.num_frames * config.audio_samples_per_frame),
        "pixel_values_videos": torch.randn(size, num_frames, 3, height, width),
    }


def all_positions(config: transformers.PerceiverConfig) -> tuple[Tensor, Tensor]:
    num_frames, height, width = config.output_shape[1:]
    num_samples = config.num_frames * config.audio_samples_per_frame
    return torch.arange(num_samples // config.samples_per_patch), torch.arange(num_frames * height * width)


@pytest.fixture(params=list(VARIANTS))
def theirs(request, peer) -> transformers.PerceiverForMultimodalAutoencoding:
    # With few pixels, some random parameters amplify rounding errors beyond the tolerances below.
    torch.manual_seed(0)
    return peer(**VARIANTS[request.param])


@pytest.mark.slow
@torch.no_grad()
def test_outputs_equal_hugging_faces_in_both_directions(theirs, hf_logits):
    ours = MULTIMODAL.from_hugging_face(theirs)
    batch, (audio, pixels) = batch_for(theirs.config), all_positions(theirs.config)
    expected = hf_logits(theirs, batch, audio, pixels)
    found = decode(ours, batch)
    reordered = decode(ours, {name: value.flip(0) for name, value in batch.items()})
    for modality, value in expected.items():
        assert relative_difference(found[modality].reshape(value.shape), value) < 1e-5
        assert relative_difference(reordered[modality].reshape(value.shape), value) > 1e-4  # outputs depend on clips
    # Some positions, in any order.
    audio, pixels = audio.flip(0)[::2], pixels[torch.randperm(len(pixels))[:17]]
    expected = hf_logits(theirs, batch, audio, pixels)
    found = decode(ours, batch, {"audio": audio, "image": pixels, "label": None})
    for modality, value in expected.items():
        assert relative_difference(found[modality].reshape(value.shape), value) < 1e-5

    back = MULTIMODAL.to_hugging_face(ours)
    assert type(back) is type(theirs)
    for name, parameter in theirs.state_dict().items():
        assert torch.equal(back.state_dict()[name], parameter), name
    for modality, value in hf_logits(back, batch, audio, pixels).items():
        assert relative_difference(value, expected[modality]) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("theirs", ["base", "more-frames-than-resolved", "several-blocks-and-heads"], indirect=True)
def test_outputs_equal_hugging_faces_in_double_precision(theirs, hf_logits):
    theirs = theirs.double()
    ours = MULTIMODAL.from_hugging_face(theirs).double()
    ours.load_state_dict(MULTIMODAL.from_state(ours.config, theirs.state_dict()))
    batch = {name: value.double() for name, value in batch_for(theirs.config).items()}
    expected = hf_logits(theirs, batch, *all_positions(theirs.config))
    for modality, value in decode(ours, batch).items():
        assert relative_difference(value.reshape(expected[modality].shape), expected[modality]) < 1e-12


def test_every_parameter_is_converted(theirs):
    config = convert_config(theirs.config)
    ours = assemble(config)
    pairs = dict(MULTIMODAL.pairs(config))
    assert set(pairs) == set(ours.state_dict())
    assert sorted(pairs.values()) == sorted(theirs.state_dict())
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    assert config_from_dict(config_to_dict(config)) == config


def test_published_configuration_has_its_parameters_and_channels():
    config = transformers.PerceiverConfig(
        num_latents=784,
        d_latents=512,
        d_model=704,
        num_blocks=1,
        num_self_attends_per_block=8,
        num_self_attention_heads=8,
        num_cross_attention_heads=1,
        num_labels=700,
    )
    ours = convert_config(config)
    assert ours.encoder.num_input_channels == 704
    assert ours.decoder.num_query_channels == 1026
    assert (ours.encoder.audio_max_resolution, ours.encoder.video_max_resolution) == (30720, (16, 56, 56))
    with torch.device("meta"):
        models = assemble(ours), transformers.PerceiverForMultimodalAutoencoding(config)
    for model in models:
        assert sum(parameter.numel() for parameter in model.parameters()) == 19_858_855
    provider = models[0].output_adapter.query_provider
    assert provider.num_positions == {"audio": 1920, "image": 16 * 224 * 224, "label": 1}


# Peculiarities of Hugging Face's model


@torch.no_grad()
def test_modalities_are_ordered_by_name(peer):
    theirs = peer()
    ours = MULTIMODAL.from_hugging_face(theirs)
    batch = batch_for(theirs.config)
    inputs = {"label": torch.randn(2, 5), "image": batch["pixel_values_videos"], "audio": batch["input_values"]}
    expected, sizes, _ = theirs.perceiver.input_preprocessor(inputs)
    assert sizes == {"audio": 12, "image": 3 * 2 * 3, "label": 1}
    found = ours.input_adapter(batch).x
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("training", [False, True])
def test_published_model_always_masks_the_label(peer, training):
    ours = MULTIMODAL.from_hugging_face(peer()).train(training)
    batch = batch_for(peer().config)
    arrays = [ours.input_adapter({**batch, "labels": torch.tensor(labels)}).x for labels in ([0, 1], [3, 2])]
    assert torch.equal(*arrays)
    mask_token = ours.input_adapter.mask_tokens["label"]
    assert torch.equal(arrays[0][:, -1], mask_token.expand(2, -1))


def test_full_decoding_works_where_hugging_face_fails(peer):
    theirs = peer()
    batch = batch_for(theirs.config)
    inputs = {"audio": batch["input_values"][..., None], "image": batch["pixel_values_videos"]}
    with pytest.raises((RuntimeError, ValueError)):
        theirs(inputs=inputs | {"label": torch.zeros(2, 5)})
    found = reconstruct(MULTIMODAL.from_hugging_face(theirs), batch)
    assert found.input_values.shape == batch["input_values"].shape
    assert found.pixel_values_videos.shape == batch["pixel_values_videos"].shape
    assert found.logits.shape == (2, 5)


@torch.no_grad()
def test_other_lengths_and_sizes_equal_hugging_faces(peer, hf_logits):
    theirs = peer()
    batch = {"input_values": torch.randn(2, 20), "pixel_values_videos": torch.randn(2, 4, 3, 16, 4)}
    positions = torch.tensor([3, 1]), torch.tensor([100, 0, 287])
    expected = hf_logits(theirs, batch, *positions)
    ours = MULTIMODAL.from_hugging_face(theirs)
    found = decode(ours, batch, {"audio": positions[0], "image": positions[1], "label": None})
    for modality, value in expected.items():
        assert relative_difference(found[modality].reshape(value.shape), value) < 1e-5


# Configuration


def test_values_of_the_configuration_are_converted(peer):
    names = {1: "b", 0: "a"}
    config = convert_config(peer(id2label=names, num_labels=2, initializer_range=0.3).config, params="elsewhere")
    assert config.params == "elsewhere"
    assert (config.decoder.num_classes, config.decoder.label_names) == (2, ["a", "b"])
    assert (config.encoder.dropout, config.decoder.dropout, config.encoder.init_scale) == (0.2, 0.2, 0.3)
    unnamed = convert_config(peer().config)
    assert (unnamed.encoder.num_classes, unnamed.decoder.label_names, unnamed.params) == (5, None, None)


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("encoder", {"patch_size": (1, 2, 2)}, r"encoder.patch_size is \(1, 2, 2\), must be \(1, 4, 4\)"),
        ("encoder", {"min_padding": 5}, "encoder.min_padding is 5, must be 4"),
        ("encoder", {"video_max_resolution": (3, 6, 7)}, "encoder.video_max_resolution"),
        ("encoder", {"audio_mask_probability": 1.0}, "encoder.audio_mask_probability is 1.0, must be 0.0"),
        ("decoder", {"num_video_frequency_bands": 3}, "decoder.num_video_frequency_bands is 3, must be 32"),
        ("decoder", {"min_padding": 3}, "decoder.min_padding is 3, must be 2"),
        ("decoder", {"cross_attention_residual": True}, "decoder.cross_attention_residual is True"),
        ("decoder", {"num_cross_attention_qk_channels": 3}, "decoder.num_cross_attention_qk_channels is 3"),
    ],
)
def test_inexpressible_models_are_refused(peer, part, changes, message):
    config = convert_config(peer().config)
    changed = dataclasses.replace(getattr(config, part), **changes)
    with pytest.raises(ValueError, match=f"cannot express this model: .*{message}"):
        MULTIMODAL.hugging_face_config(dataclasses.replace(config, **{part: changed}))


def test_mask_probability_of_the_label_is_not_compared(peer):
    config = convert_config(peer().config)
    trained = dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, label_mask_probability=0.5))
    assert convert_config(MULTIMODAL.hugging_face_config(trained)) == config


# Folders in the hub's layout


@torch.no_grad()
def test_hub_folder_is_loaded(peer, hf_logits, tmp_path):
    theirs = peer(id2label=dict(enumerate("abcde")))
    theirs.save_pretrained(tmp_path / "saved")
    conversion, found = conversion_at(str(tmp_path / "saved"))
    config = conversion.convert_config(found)
    assert (config.params, config.decoder.label_names) == (str(tmp_path / "saved"), [*"abcde"])
    ours = assemble(config).eval()
    batch = batch_for(theirs.config)
    expected = hf_logits(theirs, batch, *all_positions(theirs.config))
    for modality, value in decode(ours, batch).items():
        assert relative_difference(value.reshape(expected[modality].shape), expected[modality]) < 1e-5
