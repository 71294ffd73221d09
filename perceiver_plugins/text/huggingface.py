"""Exact conversion of Hugging Face's Perceiver language models (``transformers.PerceiverForMaskedLM``)."""

from __future__ import annotations

import transformers
from torch import Tensor

from perceiver_core import PerceiverConfig
from perceiver_plugins.text.config import TextDecoderConfig, TextEncoderConfig
from perceiver_plugins.training.huggingface import (
    Pairs,
    count_layers,
    encoder_pairs,
    encoder_values,
    layer_pairs,
    load_config,
    load_state,
)

KIND = "Perceiver language model"

NUM_DECODER_HEADS = 8
NUM_DECODER_QK_CHANNELS = 256
"""Values of the masked-LM decoder that ``PerceiverForMaskedLM`` fixes in its code."""


def convert_config(
    config: transformers.PerceiverConfig, params: str | None = None
) -> PerceiverConfig[TextEncoderConfig, TextDecoderConfig]:
    """The configuration of the model that ``transformers.PerceiverForMaskedLM(config)`` builds.

    Args:
        config: Hugging Face's configuration.
        params: where to load weights from. None: where ``config`` was loaded from, if it was.

    Raises:
        ValueError: if ``config`` asks for an activation other than the exact GELU.
    """
    encoder = TextEncoderConfig(
        vocab_size=config.vocab_size,
        max_seq_len=config.max_position_embeddings,
        num_input_channels=config.d_model,
        **encoder_values(config, config.d_model),
    )
    decoder = TextDecoderConfig(
        vocab_size=config.vocab_size,
        max_seq_len=config.max_position_embeddings,
        num_cross_attention_heads=NUM_DECODER_HEADS,
        num_cross_attention_qk_channels=NUM_DECODER_QK_CHANNELS,
        num_cross_attention_v_channels=config.d_model,
        cross_attention_widening_factor=1,
        cross_attention_residual=False,
        dropout=config.attention_probs_dropout_prob,
        init_scale=config.initializer_range,
    )
    return PerceiverConfig(
        encoder,
        decoder,
        num_latents=config.num_latents,
        num_latent_channels=config.d_latents,
        params=params or config.name_or_path or None,
    )


def published_config(source: str) -> PerceiverConfig[TextEncoderConfig, TextDecoderConfig]:
    """The configuration of the published model at ``source`` (a hub id or a local folder in the hub's layout).

    Raises:
        UserError: if there is no Perceiver at ``source``, or the hub cannot be reached.
    """
    return convert_config(load_config(source, KIND), source)


def convert_params(source: str) -> dict[str, Tensor]:
    """The weights of the published model at ``source``, as a state dict of ``LanguageModel``.

    Raises:
        UserError: if there is no Perceiver language model at ``source``, or the hub cannot be reached.
    """
    return convert_state_dict(load_state(transformers.PerceiverForMaskedLM, source, KIND))


def convert_state_dict(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Turns the state dict of a ``transformers.PerceiverForMaskedLM`` into one of a ``LanguageModel``."""
    return {ours: state[theirs] for ours, theirs in key_pairs(count_layers(state))}


def key_pairs(num_layers: int) -> Pairs:
    """Pairs of the names of a parameter in ``LanguageModel`` and in ``PerceiverForMaskedLM``.

    Args:
        num_layers: number of self-attention layers in a block.
    """
    embedding = "perceiver.input_preprocessor.embeddings.weight"
    yield "input_adapter.token_embedding.weight", embedding
    yield "input_adapter.position_embedding.weight", "perceiver.input_preprocessor.position_embeddings.weight"
    yield "output_adapter.embedding.weight", embedding
    yield "output_adapter.bias", "embedding_decoder.bias"
    yield (
        "output_adapter.query_provider.queries",
        "perceiver.decoder.output_position_encodings.position_embeddings",
    )
    yield from encoder_pairs(num_layers)
    yield from layer_pairs("decoder.cross_attention_layer", "perceiver.decoder.decoding_cross_attention", cross=True)
