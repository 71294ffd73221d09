"""Exact conversion of Hugging Face's image classifiers in both directions."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
import transformers
from torch import Tensor, nn

from perceiver_core import PerceiverIO
from perceiver_plugins.huggingface.conversion_table import conversion_at, conversion_of
from perceiver_plugins.huggingface.formats import HuggingFaceFormat
from perceiver_plugins.huggingface.image import (
    ARCHITECTURES,
    convert_config,
)
from perceiver_registry import UserError, assemble, build_adapters, read_model

LEARNED, FOURIER, CONV = (f"PerceiverForImageClassification{name}" for name in ("Learned", "Fourier", "ConvProcessing"))
BASE = {
    "num_latents": 7,
    "d_latents": 12,
    "num_blocks": 2,
    "num_self_attends_per_block": 2,
    "num_self_attention_heads": 3,
    "num_cross_attention_heads": 1,
    "image_size": 13,
    "num_labels": 5,
    "attention_probs_dropout_prob": 0.2,
}
VARIANTS = {
    "learned": (LEARNED, {}),
    "learned-q-channels": (LEARNED, {"cross_attention_shape_for_attention": "q", "num_cross_attention_heads": 4}),
    "fourier": (FOURIER, {"num_blocks": 1, "num_labels": 1}),
    "fourier-3-heads": (FOURIER, {"num_cross_attention_heads": 3, "cross_attention_widening_factor": 2}),
    "fourier-qk-and-v": (FOURIER, {"qk_channels": 24, "v_channels": 12, "num_cross_attention_heads": 2}),
    "conv": (CONV, {"num_blocks": 3, "self_attention_widening_factor": 3}),
    "conv-no-residual": (CONV, {"use_query_residual": False, "num_cross_attention_heads": 2, "num_latents": 1}),
}
PUBLISHED = {
    "num_latents": 512,
    "d_latents": 1024,
    "num_blocks": 8,
    "num_self_attends_per_block": 6,
    "num_self_attention_heads": 8,
    "num_cross_attention_heads": 1,
    "image_size": 224,
    "num_labels": 1000,
}


def relative_difference(actual: Tensor, expected: Tensor) -> float:
    return ((actual - expected).abs().max() / expected.abs().max()).item()


@pytest.fixture
def peer(randomise):
    """Factory of Hugging Face models with random parameters and statistics, and the configuration BASE."""

    def peer(architecture: str, **changes) -> nn.Module:
        model = randomise(getattr(transformers, architecture)(transformers.PerceiverConfig(**(BASE | changes))))
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.running_mean.normal_()
                norm.running_var.uniform_(0.5, 2.0)
                norm.num_batches_tracked.fill_(17)
        return model.eval()

    return peer


@pytest.fixture(params=list(VARIANTS))
def pair(request, peer) -> tuple[nn.Module, PerceiverIO]:
    """Hugging Face's model and its conversion."""
    architecture, changes = VARIANTS[request.param]
    theirs = peer(architecture, **changes)
    ours = assemble(convert_config(theirs.config, architecture)).eval()
    ours.load_state_dict(conversion_of(architecture, "").from_state(ours.config, theirs.state_dict()))
    return theirs, ours


@torch.no_grad()
def test_logits_equal_hugging_face(pair, request):
    theirs, ours = pair
    if type(theirs).__name__ == LEARNED:
        request.getfixturevalue("needs_interpolation")
    for size in ((13, 13), (20, 28), (33, 17)):
        images = torch.randn(3, 3, *size) + 3 * torch.randn(3, 3, 1, 1)
        # Only the model with learned positions has the option to interpolate them, and needs it.
        options = {"interpolate_pos_encoding": True} if type(theirs).__name__ == LEARNED else {}
        expected = theirs(pixel_values=images, **options).logits
        actual = ours({"pixel_values": images})
        assert actual.shape == (3, theirs.config.num_labels)
        assert relative_difference(actual, expected) < 1e-5
        assert relative_difference(actual.flip(0), expected) > 1e-3  # the images mattered


def test_gradients_equal_hugging_face(pair):
    theirs, ours = pair
    images = torch.randn(3, 3, 13, 13)
    theirs.train(), ours.train()  # for the statistics of batches
    for module in (*theirs.modules(), *ours.modules()):
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
        elif isinstance(module, nn.Dropout):
            module.p = 0.0
    theirs(pixel_values=images).logits.square().mean().backward()
    ours({"pixel_values": images}).square().mean().backward()
    gradients = theirs.state_dict() | {name: parameter.grad for name, parameter in theirs.named_parameters()}
    expected = conversion_of(type(theirs).__name__, "").from_state(ours.config, gradients)
    scale = max(parameter.grad.abs().max() for parameter in theirs.parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad / scale, expected[name] / scale, atol=1e-6, rtol=1e-3)
    for name, statistic in ours.named_buffers():
        torch.testing.assert_close(statistic, expected[name], atol=1e-6, rtol=1e-5)


def test_all_parameters_and_statistics_are_converted(pair):
    theirs, ours = pair
    converted = conversion_of(type(theirs).__name__, "").from_state(ours.config, theirs.state_dict())
    assert set(converted) == set(ours.state_dict())
    assert len(converted) == len(theirs.state_dict())
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


@torch.no_grad()
def test_conversion_round_trip(pair, randomise):
    theirs, _ = pair
    conversion = conversion_of(type(theirs).__name__, "")
    images = torch.randn(2, 3, 13, 13)
    ours = randomise(conversion.from_hugging_face(theirs))
    changed = conversion.to_hugging_face(ours)
    assert type(changed) is type(theirs)
    assert relative_difference(changed(pixel_values=images).logits, ours({"pixel_values": images})) < 1e-5
    assert relative_difference(changed(pixel_values=images).logits, theirs(pixel_values=images).logits) > 1e-2


@pytest.mark.parametrize(
    ("architecture", "changes", "message"),
    [
        (LEARNED, {"image_size": (13, 14)}, "encoder.image_size is .13, 14., must be .13, 13."),
        (LEARNED, {"num_conv_channels": 32}, "encoder.num_conv_channels is 32, must be 256"),
        (FOURIER, {"max_resolution": (28, 28)}, "encoder.max_resolution is .28, 28., must be .224, 224."),
        (FOURIER, {"num_channels": 1}, "encoder.num_channels is 1, must be 3"),
        (CONV, {"num_frequency_bands": 8}, "encoder.num_frequency_bands is 8, must be 64"),
    ],
)
def test_config_without_hugging_face_equivalent_is_rejected(architecture, changes, message):
    config = convert_config(transformers.PerceiverConfig(**BASE), architecture)
    changed = replace(config, encoder=replace(config.encoder, **changes))
    with pytest.raises(ValueError, match=message):
        conversion_of(architecture, "").hugging_face_config(changed)


@pytest.mark.parametrize(
    ("architecture", "num_parameters"), [(LEARNED, 62_255_848), (FOURIER, 48_440_627), (CONV, 48_646_522)]
)
def test_published_configs_have_the_published_numbers_of_parameters(architecture, num_parameters):
    config = transformers.PerceiverConfig(**PUBLISHED)
    with torch.device("meta"):
        ours, theirs = assemble(convert_config(config, architecture)), getattr(transformers, architecture)(config)
    for model in (ours, theirs):
        assert sum(parameter.numel() for parameter in model.parameters()) == num_parameters


def test_encoder_follows_the_model_class():
    hf_config = transformers.PerceiverConfig(**BASE)
    learned, fourier, conv = (convert_config(hf_config, name).encoder for name in (LEARNED, FOURIER, CONV))
    assert (learned.image_size, learned.num_conv_channels, learned.num_position_channels) == ((13, 13), 256, 256)
    assert (fourier.num_frequency_bands, fourier.max_resolution) == (64, (224, 224))
    assert (conv.num_frequency_bands, conv.max_resolution, conv.num_conv_channels) == (64, (56, 56), 64)
    for config, name in ((learned, LEARNED), (fourier, FOURIER), (conv, CONV)):
        assert config.num_channels == 3
        input_adapter, _ = build_adapters(convert_config(hf_config, name))
        assert ARCHITECTURES[name].num_input_channels == input_adapter.num_input_channels


def test_dropout_and_initialisation_are_converted():
    config = convert_config(transformers.PerceiverConfig(**BASE, initializer_range=0.3), FOURIER)
    assert (config.encoder.dropout, config.decoder.dropout) == (0.2, 0.2)
    assert (config.encoder.init_scale, config.decoder.init_scale, config.init) == (0.3, 0.3, "normal")


def test_label_names_are_converted_unless_generated():
    named = transformers.PerceiverConfig(num_cross_attention_heads=1, id2label={2: "cat", 0: "ant", 1: "bee"})
    decoder = convert_config(named, FOURIER).decoder
    assert (decoder.num_classes, decoder.label_names) == (3, ["ant", "bee", "cat"])
    unnamed = transformers.PerceiverConfig(num_cross_attention_heads=1, num_labels=11)
    decoder = convert_config(unnamed, FOURIER).decoder
    assert (decoder.num_classes, decoder.label_names) == (11, None)


def test_source_of_the_weights_can_be_given():
    fresh = transformers.PerceiverConfig(**BASE)
    assert convert_config(fresh, CONV, params="elsewhere").params == "elsewhere"
    assert convert_config(fresh, CONV).params is None


@pytest.fixture(params=list(ARCHITECTURES))
def folder(request, peer, tmp_path) -> tuple[str, nn.Module]:
    """Folder in the hub's layout, and the model saved in it."""
    names = dict(enumerate(["ant", "bee", "cat"]))
    theirs = peer(request.param, id2label=names, num_labels=3)
    theirs.save_pretrained(tmp_path / "saved")
    return str(tmp_path / "saved"), theirs


@torch.no_grad()
def test_folder_in_hub_layout_is_loaded_by_architecture(folder):
    source, theirs = folder
    conversion, found = conversion_at(source)
    config = conversion.convert_config(found)
    assert config.params == source
    assert config.decoder.label_names == ["ant", "bee", "cat"]
    assert config == convert_config(transformers.AutoConfig.from_pretrained(source))
    ours = assemble(config).eval()
    images = torch.randn(2, 3, 13, 13)
    assert relative_difference(ours({"pixel_values": images}), theirs(pixel_values=images).logits) < 1e-5


def error_message(function, source: str) -> str:
    """Return the error message for ``source``, which must be one line that names it."""
    with pytest.raises(UserError) as error:
        function(source)
    message = str(error.value)
    assert "\n" not in message
    assert f"{source}: " in message
    return message


@pytest.mark.parametrize("function", [conversion_at, HuggingFaceFormat().weights])
def test_unconvertible_folder_is_rejected(function, tmp_path):
    assert "cannot load a Perceiver" in error_message(function, str(tmp_path / "missing"))
    transformers.BertConfig(num_hidden_layers=1).save_pretrained(tmp_path)
    assert "not a Perceiver (model_type is 'bert')" in error_message(function, str(tmp_path))
    transformers.PerceiverConfig(**BASE).save_pretrained(tmp_path)
    assert "Perceiver without a task cannot be converted" in error_message(function, str(tmp_path))
    transformers.PerceiverConfig(**BASE, architectures=["PerceiverModel"]).save_pretrained(tmp_path)
    assert "model.safetensors not found" in error_message(function, str(tmp_path))


def test_weights_of_another_model_are_rejected(peer, tmp_path):
    peer(FOURIER).save_pretrained(tmp_path)
    transformers.PerceiverConfig(**BASE, architectures=[CONV]).save_pretrained(tmp_path)
    assert "cannot load a Perceiver for image classification" in error_message(
        HuggingFaceFormat().weights, str(tmp_path)
    )
    transformers.PerceiverModel(transformers.PerceiverConfig(**BASE, d_model=261)).save_pretrained(tmp_path)
    transformers.PerceiverConfig(**BASE, architectures=[FOURIER]).save_pretrained(tmp_path)
    assert "its weights lack 'perceiver.decoder.decoder." in error_message(HuggingFaceFormat().weights, str(tmp_path))


def test_unconvertible_config_is_rejected():
    config = transformers.PerceiverConfig(**BASE)
    with pytest.raises(ValueError, match=f"architecture='PerceiverForOpticalFlow': must be one of .*{CONV}"):
        convert_config(config, "PerceiverForOpticalFlow")
    with pytest.raises(ValueError, match="architecture=None: must be one of"):
        convert_config(config)
    config.hidden_act = "relu"
    with pytest.raises(ValueError, match="hidden_act='relu'"):
        convert_config(config, CONV)


@pytest.mark.parametrize(
    ("options", "size", "crop_pct"),
    [
        ({"size": {"height": 16, "width": 12}, "crop_size": {"height": 20, "width": 15}}, [16, 12], 0.8),
        ({"size": 14, "crop_size": 16}, [14, 14], 0.875),  # older files say both sides in one number
        ({"size": 14, "crop_size": 16, "do_center_crop": False}, [14, 14], 1.0),
        ({}, [13, 13], 13 / 15),
    ],
    ids=str,
)
def test_image_processor_options_are_converted(peer, tmp_path, options, size, crop_pct):
    source = str(tmp_path / "model")
    peer(FOURIER).save_pretrained(source)
    if options:
        (tmp_path / "model" / "preprocessor_config.json").write_text(
            json.dumps(options | {"image_mean": [0.1, 0.2, 0.3]})
        )
    data = read_model(source).description.data
    assert (list(data["image_size"]), data["crop_pct"]) == (size, crop_pct)
    assert data["mean"] == pytest.approx([0.1, 0.2, 0.3] if options else [0.485, 0.456, 0.406])
