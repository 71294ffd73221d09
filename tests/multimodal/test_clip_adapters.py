"""Input adapters of clips: patches, positions, modality embeddings and masks, against independent formulas."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from transformers.models.perceiver.modeling_perceiver import space_to_depth as hf_space_to_depth

from perceiver_plugins.multimodal import (
    AudioPatchesEncoderConfig,
    AudioPatchesInputAdapter,
    AudioVideoLabelDecoderConfig,
    AudioVideoLabelEncoderConfig,
    AudioVideoLabelInputAdapter,
    LabelInputAdapter,
    LitMultimodalAutoencoder,
    VideoPatchesEncoderConfig,
    VideoPatchesInputAdapter,
    space_to_depth,
)
from perceiver_registry import UserError, assemble

# Patches


@pytest.mark.parametrize("patch_size", [(1, 4, 4), (2, 3, 3), (3, 1, 1), (1, 1, 1)])
def test_space_to_depth_equals_hugging_faces(patch_size):
    frames = torch.randn(2, 6, 3, 12, 24)
    time, side, _ = patch_size
    assert torch.equal(space_to_depth(frames, patch_size), hf_space_to_depth(frames, time, side))


def test_patch_channels_are_ordered_by_time_height_width_colour():
    shape = (2, 4, 3, 6, 10)
    frames = torch.arange(math.prod(shape)).view(shape)
    patches = space_to_depth(frames, (2, 3, 5))
    assert patches.shape == (2, 2, 2, 2, 2 * 3 * 5 * 3)
    for b, t, h, w, dt, dh, dw, c in ((0, 0, 0, 0, 0, 0, 0, 0), (1, 1, 0, 1, 1, 2, 4, 2), (0, 1, 1, 0, 0, 1, 3, 1)):
        channel = ((dt * 3 + dh) * 5 + dw) * 3 + c
        assert patches[b, t, h, w, channel] == frames[b, 2 * t + dt, c, 3 * h + dh, 5 * w + dw]


def features(positions: list[float], num_bands: int, resolutions: list[int]) -> torch.Tensor:
    """Compute Fourier features with scalars: positions, all sines, all cosines."""
    phases = [
        math.pi * x * (1 + band * (resolution / 2 - 1) / (num_bands - 1))
        for x, resolution in zip(positions, resolutions, strict=True)
        for band in range(num_bands)
    ]
    return torch.tensor([*positions, *map(math.sin, phases), *map(math.cos, phases)])


def test_audio_positions_have_samples_and_fourier_features():
    adapter = AudioPatchesInputAdapter.from_config(
        AudioPatchesEncoderConfig(num_audio_samples=20, samples_per_patch=5, num_frequency_bands=3)
    )
    samples = torch.randn(2, 20)
    x, pad_mask, _ = adapter({"input_values": samples})
    assert pad_mask is None
    assert x.shape == (2, 4, adapter.num_input_channels) == (2, 4, 5 + 7)
    for i in range(4):
        assert torch.equal(x[:, i, :5], samples[:, 5 * i : 5 * i + 5])
        expected = features([-1 + 2 * i / 3], 3, [20])  # resolution in samples, not patches
        torch.testing.assert_close(x[1, i, 5:], expected, rtol=0, atol=1e-5)


def test_video_positions_have_pixels_and_fourier_features():
    config = VideoPatchesEncoderConfig(num_frames=4, frame_size=(6, 4), patch_size=(2, 3, 2), num_frequency_bands=2)
    assert config.max_resolution == (2, 2, 2)
    config = VideoPatchesEncoderConfig(
        num_frames=4, frame_size=(6, 4), patch_size=(2, 3, 2), num_frequency_bands=2, max_resolution=(5, 7, 9)
    )
    adapter = VideoPatchesInputAdapter.from_config(config)
    frames = torch.randn(2, 4, 3, 9, 4)  # not the height in the configuration
    x = adapter({"pixel_values_videos": frames}).x
    assert x.shape == (2, 2 * 3 * 2, adapter.num_input_channels) == (2, 12, 36 + 15)
    position = (1 * 3 + 2) * 2 + 0
    pixels = frames[0, 2:4, :, 6:9, 0:2].permute(0, 2, 3, 1).flatten()
    assert torch.equal(x[0, position, :36], pixels)
    torch.testing.assert_close(x[0, position, 36:], features([1, 1, -1], 2, [5, 7, 9]), rtol=0, atol=1e-5)


def test_labels_are_one_hot_and_unknown_labels_zero():
    x = LabelInputAdapter(4)({"labels": torch.tensor([2, -100, 0])}).x
    assert x.tolist() == [[[0, 0, 1, 0]], [[0, 0, 0, 0]], [[1, 0, 0, 0]]]


# Composite adapter


@pytest.mark.parametrize(
    ("clip", "expected"),
    [({}, 24 + 15 + 4), ({"num_audio_frequency_bands": 40}, 3 + 81 + 4), ({"num_classes": 90}, 90 + 4)],
)
def test_widest_modality_gets_min_padding(clip_model_config, tiny_batch, clip, expected):
    config = clip_model_config(clip, {"patch_size": (1, 4, 2)}).encoder
    adapter = AudioVideoLabelInputAdapter.from_config(config)
    assert config.num_input_channels == adapter.num_input_channels == expected
    assert adapter(tiny_batch).x.shape == (3, 4 + 8 + 1, expected)
    assert min(embedding.shape[1] for embedding in adapter.embeddings.values()) == 4


@pytest.fixture
def adapter(clip_model_config, randomise):
    def adapter(**encoder) -> AudioVideoLabelInputAdapter:
        return randomise(AudioVideoLabelInputAdapter.from_config(clip_model_config(encoder=encoder).encoder))

    return adapter


SLICES = {"audio": slice(0, 4), "image": slice(4, 8), "label": slice(8, 9)}


def test_input_is_concatenation_of_parts_with_modality_embeddings(adapter, tiny_batch):
    whole = adapter(label_mask_probability=0.0)
    x = whole(tiny_batch).x
    assert x.shape[1] == 9
    for modality, part in SLICES.items():
        expected = whole.parts[modality](tiny_batch).x
        embedding = whole.embeddings[modality].expand(3, expected.shape[1], -1)
        assert torch.equal(x[:, part], torch.cat([expected, embedding], dim=-1))


@pytest.mark.parametrize("modality", ["audio", "image", "label"])
def test_probability_of_one_always_masks_a_modality(adapter, tiny_batch, modality):
    name = "video" if modality == "image" else modality
    whole = adapter(**{f"{name}_mask_probability": 1.0})
    for mode in (True, False):
        x = whole.train(mode)(tiny_batch).x
        masked = whole.mask_tokens[modality].expand(3, SLICES[modality].stop - SLICES[modality].start, -1)
        assert torch.equal(x[:, SLICES[modality]], masked)


@pytest.mark.parametrize("modality", ["audio", "image"])
def test_positions_are_masked_with_the_given_probability_only_in_training(adapter, tiny_batch, modality):
    name = "video" if modality == "image" else modality
    whole, plain = adapter(**{f"{name}_mask_probability": 0.3}), adapter()
    plain.load_state_dict(whole.state_dict())
    batch = {entry: value.repeat(400, *[1] * (value.dim() - 1)) for entry, value in tiny_batch.items()}
    unmasked = plain(batch).x
    x = whole(batch).x
    token = whole.mask_tokens[modality]
    masked = (x[:, SLICES[modality]] == token).all(dim=-1)
    assert masked.float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert torch.equal(x[:, SLICES[modality]][~masked], unmasked[:, SLICES[modality]][~masked])
    for other in {*SLICES} - {modality}:
        assert torch.equal(x[:, SLICES[other]], unmasked[:, SLICES[other]])
    assert torch.equal(whole.eval()(batch).x, unmasked)


def test_label_is_masked_in_evaluation(adapter, tiny_batch):
    whole = adapter(label_mask_probability=0.5)
    batch = {entry: value.repeat(400, *[1] * (value.dim() - 1)) for entry, value in tiny_batch.items()}
    x = whole(batch).x[:, 8]
    masked = (x == whole.mask_tokens["label"]).all(dim=-1)
    assert masked.float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert torch.equal(x[~masked][:, :5].argmax(dim=-1), batch["labels"][~masked])
    evaluated = whole.eval()(batch).x[:, 8]
    assert torch.equal(evaluated, whole.mask_tokens["label"].expand(1200, -1))
    del batch["labels"]
    assert torch.equal(whole(batch).x[:, 8], evaluated)


def test_unused_vectors_require_no_gradient(clip_model_config):
    def frozen(**encoder) -> set[str]:
        adapter = assemble(clip_model_config(encoder=encoder)).input_adapter
        return {name for name, parameter in adapter.named_parameters() if not parameter.requires_grad}

    assert frozen() == {"mask_tokens.audio", "mask_tokens.image", "embeddings.label"}
    half = dict.fromkeys(("audio_mask_probability", "video_mask_probability", "label_mask_probability"), 0.5)
    assert frozen(**half) == set()


# Errors


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (VideoPatchesEncoderConfig, {"frame_size": (10, 8)}, r"frame_size=\(10, 8\): must be a multiple of patch_size"),
        (VideoPatchesEncoderConfig, {"patch_size": (4, 4)}, r"patch_size=\(4, 4\): must be 3 whole numbers"),
        (AudioVideoLabelEncoderConfig, {"frame_size": 8}, "frame_size=8: must be 2 whole numbers of at least 1"),
        (AudioVideoLabelEncoderConfig, {"num_frames": 3, "patch_size": (2, 4, 4)}, "num_frames=3: must be a multiple"),
        (AudioVideoLabelEncoderConfig, {"samples_per_patch": 7}, "num_audio_samples=30720: must be a multiple of samp"),
        (AudioVideoLabelEncoderConfig, {"label_mask_probability": 1.5}, "label_mask_probability=1.5: must be from 0"),
        (AudioVideoLabelEncoderConfig, {"min_padding": 0}, "min_padding=0: must be at least 1"),
        (
            AudioVideoLabelDecoderConfig,
            {"label_names": ["a"], "num_classes": 3},
            "label_names: 1 names do not go with num_c",
        ),
        (AudioVideoLabelDecoderConfig, {"video_max_resolution": (1, 0, 2)}, "video_max_resolution"),
    ],
)
def test_invalid_values_are_reported(config, values, message):
    with pytest.raises(ValueError, match=f"{config.__name__}.{message}"):
        config(**values)


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        (
            "input_values",
            torch.rand(3, 13),
            "input_values of shape .3, 13.: must be .* a multiple of samples_",
        ),
        ("input_values", torch.zeros(3, 12, dtype=torch.int16), "input_values of type torch.int16"),
        ("pixel_values_videos", torch.rand(3, 2, 3, 4, 6), r"pixel_values_videos of shape \(3, 2, 3, 4, 6\): must be"),
        ("pixel_values_videos", torch.rand(3, 2, 1, 4, 8), r"must be \(videos, frames, 3, height, width\)"),
        ("pixel_values_videos", torch.zeros(3, 2, 3, 4, 8, dtype=torch.uint8), "of type torch.uint8"),
    ],
)
def test_invalid_batches_are_reported(adapter, tiny_batch, entry, value, message):
    with pytest.raises(ValueError, match=message):
        adapter()(tiny_batch | {entry: value})


def test_data_must_be_a_multiple_of_the_patch_size(adapter):
    adapter().check_data(SimpleNamespace())
    adapter().check_data(SimpleNamespace(num_frames=5, frame_size=(8, 4), num_audio_samples=9))
    with pytest.raises(ValueError, match="num_audio_samples=10 must be a multiple of the model's samples_per_patch=3"):
        adapter().check_data(SimpleNamespace(num_audio_samples=10))
    with pytest.raises(ValueError, match=r"frame_size=\(8, 6\) must be multiples of the model's patch_size"):
        adapter().check_data(SimpleNamespace(num_frames=5, frame_size=(8, 6)))


def test_data_of_another_shape_is_reported(clip_model_config):
    module = LitMultimodalAutoencoder.create(clip_model_config(decoder={"label_names": [*"abcde"]}))
    fitting = {
        "num_frames": 2,
        "frame_size": (4, 8),
        "num_audio_samples": 12,
        "num_classes": 5,
        "label_names": [*"abcde"],
    }
    module.check_data(SimpleNamespace(**fitting))
    for name, value, message in (
        ("num_frames", 4, r"the data's num_frames \(4\) is not the model's \(2\)"),
        ("frame_size", (8, 8), r"the data's frame_size \(8, 8\) is not the model's \(4, 8\)"),
        ("num_audio_samples", 24, r"the data's num_audio_samples \(24\) is not the model's \(12\)"),
        ("label_names", [*"abcdf"], r"the data's label_names \(a, b, c, ... 5 in all\) is not the model's"),
    ):
        with pytest.raises(UserError, match=message):
            module.check_data(SimpleNamespace(**(fitting | {name: value})))
