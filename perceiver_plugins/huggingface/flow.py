"""Exact conversion of Hugging Face's Perceiver for optical flow in both directions."""

from __future__ import annotations

from typing import Any

import transformers
from torch import Tensor

from perceiver_core import PerceiverConfig
from perceiver_plugins.flow.adapters import extract_patches
from perceiver_plugins.flow.config import FlowPatchesEncoderConfig, OpticalFlowDecoderConfig
from perceiver_plugins.huggingface.conversion import (
    Conversion,
    encoder_pairs,
    encoder_values,
    layer_pairs,
)
from perceiver_plugins.sdk.state_dicts import Pairs, module_pairs

KIND = "Perceiver for optical flow"

NUM_INPUT_CHANNELS = 64 + 2 * (2 * 64 + 1)
"""Input channels of its encoder: 64 of the patches, and Fourier positions with 64 bands in two dimensions."""


def convert_config(
    config: transformers.PerceiverConfig, params: str | None = None
) -> PerceiverConfig[FlowPatchesEncoderConfig, OpticalFlowDecoderConfig]:
    """Convert a configuration of ``transformers.PerceiverForOpticalFlow``.

    Args:
        config: Hugging Face's configuration.
        params: source of the weights. None: source of ``config``, if it was loaded.

    Raises:
        ValueError: if the activation of ``config`` is not the exact GELU.
    """
    # transformers applies this setting of the encoder to the decoder's default channels too.
    attention_channels = {"kv": config.d_latents, "q": NUM_INPUT_CHANNELS}[config.cross_attention_shape_for_attention]
    height, width = config.train_size
    return PerceiverConfig(
        FlowPatchesEncoderConfig(image_size=(height, width), **encoder_values(config, NUM_INPUT_CHANNELS)),
        OpticalFlowDecoderConfig(
            num_cross_attention_heads=1,
            num_cross_attention_qk_channels=attention_channels,
            num_cross_attention_v_channels=attention_channels,
            cross_attention_widening_factor=1,
            cross_attention_residual=False,
            dropout=config.attention_probs_dropout_prob,
            init_scale=config.initializer_range,
        ),
        num_latents=config.num_latents,
        num_latent_channels=config.d_latents,
        params=params or config.name_or_path or None,
    )


def key_pairs(num_layers: int) -> Pairs:
    """Return the pairs of all parameters.

    Args:
        num_layers: number of self-attention layers in a block.
    """
    prefix = "perceiver.decoder.decoder"
    yield from module_pairs("input_adapter.linear", "perceiver.input_preprocessor.conv_after_patches")
    yield from encoder_pairs(num_layers)
    yield from layer_pairs("decoder.cross_attention_layer", f"{prefix}.decoding_cross_attention", cross=True)
    yield from module_pairs("output_adapter.linear", f"{prefix}.final_layer")


def _settings(config: PerceiverConfig[Any, Any]) -> dict[str, Any]:
    decoder_channels = config.decoder.num_cross_attention_qk_channels or NUM_INPUT_CHANNELS
    return {
        "train_size": list(config.encoder.image_size),
        "cross_attention_shape_for_attention": "kv" if decoder_channels == config.num_latent_channels else "q",
    }


OPTICAL_FLOW = Conversion(
    architecture="PerceiverForOpticalFlow",
    kind=KIND,
    encoder=FlowPatchesEncoderConfig,
    decoder=OpticalFlowDecoderConfig,
    convert_config=convert_config,
    settings=_settings,
    pairs=lambda config: key_pairs(config.encoder.num_self_attention_layers_per_block),
    task="optical-flow",
    hugging_face_inputs=lambda config, batch: {"inputs": patched_inputs(batch["frames"])},
    hugging_face_outputs=lambda result: result.logits.flatten(1, 2),
    data=lambda config, source: {"image_size": list(config.train_size), "downscale": 1},
)


CONVERSIONS = (OPTICAL_FLOW,)


def patched_inputs(frames: Tensor) -> Tensor:
    """Convert frames to the ``inputs`` of Hugging Face's model.

    Args:
        frames: (b, 2, 3, h, w).

    Returns:
        (b, 2, 27, h, w): the 3x3 patch around each pixel.
    """
    return extract_patches(frames, 3).permute(0, 1, 4, 2, 3)
