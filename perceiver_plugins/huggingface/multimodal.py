"""Exact conversion of Hugging Face's ``PerceiverForMultimodalAutoencoding`` in both directions."""

from __future__ import annotations

import math
from typing import Any

import torch
import transformers
from torch import Tensor

from perceiver_core import Batch, PerceiverConfig, PerceiverIO
from perceiver_plugins.huggingface.classifiers import classification_settings
from perceiver_plugins.huggingface.conversion import (
    Conversion,
    encoder_pairs,
    encoder_values,
    layer_pairs,
)
from perceiver_plugins.multimodal.config import AudioVideoLabelDecoderConfig, AudioVideoLabelEncoderConfig
from perceiver_plugins.multimodal.data.format import ClipFormat
from perceiver_plugins.multimodal.decoding import decode
from perceiver_plugins.sdk.state_dicts import Pairs, module_pairs

KIND = "Perceiver for multimodal autoencoding"

HARD_CODED_VALUES = {"num_audio_frequency_bands": 192, "num_video_frequency_bands": 32}
"""Values that are hard-coded in Hugging Face's class and differ from the defaults of this project."""

FRAME_RATE = 25
"""Frames per second of the published model's training clips, which have 1920 audio samples per frame."""

MAX_COMPARED_POSITIONS = 256
"""Largest number of output positions per modality that are compared with Hugging Face's model (arbitrary)."""

Config = PerceiverConfig[AudioVideoLabelEncoderConfig, AudioVideoLabelDecoderConfig]


def convert_config(config: transformers.PerceiverConfig, params: str | None = None) -> Config:
    """Convert a configuration of ``transformers.PerceiverForMultimodalAutoencoding``.

    Args:
        config: Hugging Face's configuration.
        params: source of the weights. None: source of ``config``, if it was loaded.

    Raises:
        ValueError: if the activation of ``config`` is not the exact GELU, or if its number of audio samples is not a
            multiple of the patch size.
    """
    num_frames, height, width = config.output_shape[1:]
    num_audio_samples = config.num_frames * config.audio_samples_per_frame
    clip: dict[str, Any] = {
        "num_frames": num_frames,
        "frame_size": (height, width),
        "num_audio_samples": num_audio_samples,
        "samples_per_patch": config.samples_per_patch,
        "num_classes": config.num_labels,
        "audio_max_resolution": num_audio_samples,
        "video_max_resolution": (config.num_frames, config.image_size, config.image_size),
        **HARD_CODED_VALUES,
    }
    names = [name for _, name in sorted((config.id2label or {}).items())]
    decoder = AudioVideoLabelDecoderConfig(
        **clip,
        num_label_query_channels=config._label_trainable_num_channels,
        num_output_channels=config.output_num_channels,
        label_names=None if names == [f"LABEL_{i}" for i in range(len(names))] else names,
        dropout=config.attention_probs_dropout_prob,
        init_scale=config.initializer_range,
    )
    # transformers applies this setting of the encoder to the decoder's channels too.
    channels = config.d_latents if config.cross_attention_shape_for_attention == "kv" else decoder.num_query_channels
    decoder.num_cross_attention_qk_channels = decoder.num_cross_attention_v_channels = channels
    num_input_channels = AudioVideoLabelEncoderConfig(**clip).num_input_channels
    return PerceiverConfig(
        AudioVideoLabelEncoderConfig(**clip, **encoder_values(config, num_input_channels)),
        decoder,
        num_latents=config.num_latents,
        num_latent_channels=config.d_latents,
        params=params or config.name_or_path or None,
    )


def settings(config: Config) -> dict[str, Any]:
    """Return Hugging Face's settings of a configuration, without those of the generic encoder."""
    encoder, decoder = config.encoder, config.decoder
    assert encoder.audio_max_resolution is not None
    assert encoder.video_max_resolution is not None
    num_frames, height, _ = encoder.video_max_resolution
    values = {
        "num_frames": num_frames,
        "audio_samples_per_frame": encoder.audio_max_resolution // num_frames,
        "samples_per_patch": encoder.samples_per_patch,
        "image_size": height,
        "output_shape": [1, *decoder.video_shape],
        "output_num_channels": decoder.num_output_channels,
        "_label_trainable_num_channels": decoder.num_label_query_channels,
        **classification_settings(decoder),
    }
    channels = decoder.num_cross_attention_qk_channels or decoder.num_query_channels
    if config.num_latent_channels != decoder.num_query_channels:  # otherwise both values are equivalent
        values["cross_attention_shape_for_attention"] = "kv" if channels == config.num_latent_channels else "q"
    return values


def key_pairs(num_layers: int) -> Pairs:
    """Return the pairs of all parameters.

    Args:
        num_layers: number of self-attention layers in a block.
    """
    prefix = "perceiver.decoder"
    for modality in ("audio", "image", "label"):
        yield f"input_adapter.embeddings.{modality}", f"perceiver.input_preprocessor.padding.{modality}"
        yield f"input_adapter.mask_tokens.{modality}", f"perceiver.input_preprocessor.mask.{modality}"
        yield f"output_adapter.query_provider.embeddings.{modality}", f"{prefix}.padding.{modality}"
        head = f"perceiver.output_postprocessor.modalities.{modality}.classifier"
        yield from module_pairs(f"output_adapter.heads.{modality}", head)
    yield (
        "output_adapter.query_provider.label_query",
        f"{prefix}.modalities.label.decoder.output_position_encodings.position_embeddings",
    )
    yield from module_pairs("output_adapter.linear", f"{prefix}.decoder.final_layer")
    yield from encoder_pairs(num_layers)
    yield from layer_pairs("decoder.cross_attention_layer", f"{prefix}.decoder.decoding_cross_attention", cross=True)


def _data(config: transformers.PerceiverConfig, source: str) -> dict[str, Any]:
    """Describe the clips."""
    num_frames, height, width = config.output_shape[1:]
    num_samples = config.num_frames * config.audio_samples_per_frame
    if num_samples % num_frames:
        return {}
    return ClipFormat(num_frames, (height, width), FRAME_RATE, num_samples // num_frames).description()


def _compared_positions(config: Config) -> dict[str, Tensor | None]:
    """Return evenly spaced output positions for comparison: Hugging Face's model cannot decode all positions."""
    encoder = config.encoder
    sizes = {
        "audio": encoder.num_audio_samples // encoder.samples_per_patch,
        "image": encoder.num_frames * math.prod(encoder.frame_size),
    }
    positions = {
        name: torch.linspace(0, size - 1, min(size, MAX_COMPARED_POSITIONS)).long() for name, size in sizes.items()
    }
    return {**positions, "label": None}


def _outputs(model: PerceiverIO, batch: Batch) -> dict[str, Tensor]:
    outputs = decode(model, batch, _compared_positions(model.config))
    return {"audio": outputs["audio"].flatten(1), "image": outputs["image"], "label": outputs["label"][:, 0]}


def _hugging_face_inputs(config: transformers.PerceiverConfig, batch: Batch) -> dict[str, Any]:
    inputs = {
        "audio": batch["input_values"][..., None],
        "image": batch["pixel_values_videos"],
        "label": batch["input_values"].new_zeros(len(batch["input_values"]), config.num_labels),
    }
    return {"inputs": inputs, "subsampled_output_points": _compared_positions(convert_config(config))}


MULTIMODAL = Conversion(
    architecture="PerceiverForMultimodalAutoencoding",
    kind=KIND,
    encoder=AudioVideoLabelEncoderConfig,
    decoder=AudioVideoLabelDecoderConfig,
    convert_config=convert_config,
    settings=settings,
    pairs=lambda config: key_pairs(config.encoder.num_self_attention_layers_per_block),
    task="multimodal-autoencoding",
    hugging_face_inputs=_hugging_face_inputs,
    hugging_face_outputs=lambda result: dict(result.logits),
    outputs=_outputs,
    data=_data,
    training_fields=("label_mask_probability",),
)

CONVERSIONS = (MULTIMODAL,)
