"""Exact conversion of Hugging Face's ``PerceiverForMultimodalAutoencoding``, both ways."""

from __future__ import annotations

import math
from typing import Any

import torch
import transformers
from torch import Tensor

from perceiver_core import Batch, PerceiverConfig, PerceiverIO
from perceiver_plugins.huggingface.conversion import (
    Conversion,
    classification_settings,
    encoder_pairs,
    encoder_values,
    layer_pairs,
)
from perceiver_plugins.multimodal.config import AudioVideoLabelDecoderConfig, AudioVideoLabelEncoderConfig
from perceiver_plugins.multimodal.data.format import ClipFormat
from perceiver_plugins.multimodal.decoding import decode
from perceiver_plugins.sdk.state_dicts import Pairs, module_pairs

KIND = "Perceiver for multimodal autoencoding"

FIXED = {"num_audio_frequency_bands": 192, "num_video_frequency_bands": 32}
"""What Hugging Face's class fixes in its code, besides padding, patches and masks, which are the defaults here."""

FRAME_RATE = 25
"""Frames a second of the clips that the published model was trained on, whose audio has 1920 samples for each."""

NUM_COMPARED = 256
"""How many output places of a modality are compared with Hugging Face's model."""

Config = PerceiverConfig[AudioVideoLabelEncoderConfig, AudioVideoLabelDecoderConfig]


def convert_config(config: transformers.PerceiverConfig, params: str | None = None) -> Config:
    """The configuration of the model that ``PerceiverForMultimodalAutoencoding(config)`` builds.

    Args:
        config: Hugging Face's configuration.
        params: where to load weights from. None: where ``config`` was loaded from, if it was.

    Raises:
        ValueError: if ``config`` asks for an activation other than the exact GELU, or if its audio is not made up of
            patches.
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
        **FIXED,
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
    # The setting is about the encoder, but the decoder's queries and keys follow it too.
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
    """Hugging Face's settings of a configuration here, besides those of the generic encoder."""
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
    if config.num_latent_channels != decoder.num_query_channels:  # else both are right
        values["cross_attention_shape_for_attention"] = "kv" if channels == config.num_latent_channels else "q"
    return values


def key_pairs(num_layers: int) -> Pairs:
    """Pairs of the names of a parameter here and in Hugging Face's model.

    Args:
        num_layers: number of self-attention layers in a block.
    """
    theirs = "perceiver.decoder"
    for modality in ("audio", "image", "label"):
        yield f"input_adapter.embeddings.{modality}", f"perceiver.input_preprocessor.padding.{modality}"
        yield f"input_adapter.mask_tokens.{modality}", f"perceiver.input_preprocessor.mask.{modality}"
        yield f"output_adapter.query_provider.embeddings.{modality}", f"{theirs}.padding.{modality}"
        head = f"perceiver.output_postprocessor.modalities.{modality}.classifier"
        yield from module_pairs(f"output_adapter.heads.{modality}", head)
    yield (
        "output_adapter.query_provider.label_query",
        f"{theirs}.modalities.label.decoder.output_position_encodings.position_embeddings",
    )
    yield from module_pairs("output_adapter.linear", f"{theirs}.decoder.final_layer")
    yield from encoder_pairs(num_layers)
    yield from layer_pairs("decoder.cross_attention_layer", f"{theirs}.decoder.decoding_cross_attention", cross=True)


def _data(config: transformers.PerceiverConfig, source: str) -> dict[str, Any]:
    """What prediction must know of clips."""
    num_frames, height, width = config.output_shape[1:]
    num_samples = config.num_frames * config.audio_samples_per_frame
    if num_samples % num_frames:
        return {}
    return ClipFormat(num_frames, (height, width), FRAME_RATE, num_samples // num_frames).description()


def _places(config: Config) -> dict[str, Tensor | None]:
    """The output places that are compared: some of all parts of a clip. Hugging Face's model cannot decode all."""
    encoder = config.encoder
    numbers = {
        "audio": encoder.num_audio_samples // encoder.samples_per_patch,
        "image": encoder.num_frames * math.prod(encoder.frame_size),
    }
    some = {name: torch.linspace(0, each - 1, min(each, NUM_COMPARED)).long() for name, each in numbers.items()}
    return {**some, "label": None}


def _our_outputs(model: PerceiverIO, batch: Batch) -> dict[str, Tensor]:
    found = decode(model, batch, _places(model.config))
    return {"audio": found["audio"].flatten(1), "image": found["image"], "label": found["label"][:, 0]}


def _their_outputs(theirs: Any, batch: Batch) -> dict[str, Tensor]:
    inputs = {
        "audio": batch["input_values"][..., None],
        "image": batch["pixel_values_videos"],
        "label": batch["input_values"].new_zeros(len(batch["input_values"]), theirs.config.num_labels),
    }
    places = _places(convert_config(theirs.config))
    return dict(theirs(inputs=inputs, subsampled_output_points=places).logits)


MULTIMODAL = Conversion(
    architecture="PerceiverForMultimodalAutoencoding",
    kind=KIND,
    encoder=AudioVideoLabelEncoderConfig,
    decoder=AudioVideoLabelDecoderConfig,
    convert_config=convert_config,
    settings=settings,
    pairs=lambda config: key_pairs(config.encoder.num_self_attention_layers_per_block),
    task="multimodal-autoencoding",
    their_outputs=_their_outputs,
    our_outputs=_our_outputs,
    data=_data,
    free=("label_mask_probability",),
)

CONVERSIONS = (MULTIMODAL,)
