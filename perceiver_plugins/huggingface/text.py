"""Exact conversion of Hugging Face's Perceivers for text in both directions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import transformers

from perceiver_core import Batch, PerceiverConfig
from perceiver_plugins.classification.config import ClassificationDecoderConfig
from perceiver_plugins.huggingface.classifiers import (
    classification_decoder_pairs,
    classification_decoder_values,
    classification_settings,
)
from perceiver_plugins.huggingface.conversion import (
    Conversion,
    encoder_pairs,
    encoder_values,
    layer_pairs,
)
from perceiver_plugins.sdk.state_dicts import Pairs
from perceiver_plugins.text.config import TextDecoderConfig, TextEncoderConfig
from perceiver_plugins.text.tokenizers import (
    TokenizerError,
    deserialize_tokenizer,
    load_tokenizer,
    serialize_tokenizer,
)

NUM_DECODER_HEADS = 8
NUM_DECODER_QK_CHANNELS = 256
"""Values of the decoder that are hard-coded in ``PerceiverForMaskedLM``."""


def convert_config(
    config: transformers.PerceiverConfig, params: str | None = None
) -> PerceiverConfig[TextEncoderConfig, TextDecoderConfig]:
    """Convert a configuration of ``transformers.PerceiverForMaskedLM``.

    Args:
        config: Hugging Face's configuration.
        params: source of the weights. None: source of ``config``, if it was loaded.

    Raises:
        ValueError: if the activation of ``config`` is not the exact GELU.
    """
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
        _encoder(config),
        decoder,
        num_latents=config.num_latents,
        num_latent_channels=config.d_latents,
        params=params or config.name_or_path or None,
    )


def convert_classifier_config(
    config: transformers.PerceiverConfig,
) -> PerceiverConfig[TextEncoderConfig, ClassificationDecoderConfig]:
    """Convert a configuration of ``transformers.PerceiverForSequenceClassification``.

    Args:
        config: Hugging Face's configuration.

    Raises:
        ValueError: if the activation of ``config`` is not the exact GELU.
    """
    return PerceiverConfig(
        _encoder(config),
        ClassificationDecoderConfig(**classification_decoder_values(config)),
        num_latents=config.num_latents,
        num_latent_channels=config.d_latents,
    )


def _encoder(config: transformers.PerceiverConfig) -> TextEncoderConfig:
    return TextEncoderConfig(
        vocab_size=config.vocab_size,
        max_seq_len=config.max_position_embeddings,
        num_input_channels=config.d_model,
        **encoder_values(config, config.d_model),
    )


def _settings(config: PerceiverConfig[TextEncoderConfig, Any]) -> dict[str, Any]:
    encoder = config.encoder
    return {
        "d_model": encoder.num_input_channels,
        "vocab_size": encoder.vocab_size,
        "max_position_embeddings": encoder.max_seq_len,
    }


def _input_pairs() -> Pairs:
    prefix = "perceiver.input_preprocessor"
    yield "input_adapter.token_embedding.weight", f"{prefix}.embeddings.weight"
    yield "input_adapter.position_embedding.weight", f"{prefix}.position_embeddings.weight"


def key_pairs(num_layers: int) -> Pairs:
    """Return the pairs of all parameters of ``LanguageModel`` and ``PerceiverForMaskedLM``.

    Args:
        num_layers: number of self-attention layers in a block.
    """
    yield from _input_pairs()
    yield "output_adapter.embedding.weight", "perceiver.input_preprocessor.embeddings.weight"
    yield "output_adapter.bias", "embedding_decoder.bias"
    yield (
        "output_adapter.query_provider.queries",
        "perceiver.decoder.output_position_encodings.position_embeddings",
    )
    yield from encoder_pairs(num_layers)
    yield from layer_pairs("decoder.cross_attention_layer", "perceiver.decoder.decoding_cross_attention", cross=True)


def _classifier_pairs(num_layers: int) -> Pairs:
    yield from _input_pairs()
    yield from encoder_pairs(num_layers)
    yield from classification_decoder_pairs()


def _num_layers(config: PerceiverConfig[Any, Any]) -> int:
    return config.encoder.num_self_attention_layers_per_block


def _data(target: str) -> Callable[[transformers.PerceiverConfig, str], dict[str, Any]]:
    """Return a function that describes the texts of a published model: its tokenizer, used as by Hugging Face."""

    def data(config: transformers.PerceiverConfig, source: str) -> dict[str, Any]:
        try:
            tokenizer = load_tokenizer(source)
        except TokenizerError:
            return {}
        if len(tokenizer) > config.vocab_size:  # a default of transformers, not the model's
            return {}
        return {
            "tokenizer": serialize_tokenizer(tokenizer),
            "max_seq_len": config.max_position_embeddings,
            "padding_side": tokenizer.padding_side,
            "truncation_side": tokenizer.truncation_side,
            "add_special_tokens": True,
            "add_eos_token": False,
            "target": target,
        }

    return data


def _processor(config: PerceiverConfig[TextEncoderConfig, Any], data: Mapping[str, Any]) -> Any:
    return deserialize_tokenizer(data["tokenizer"]) if data.get("tokenizer") else None


def _inputs(config: transformers.PerceiverConfig, batch: Batch) -> dict[str, Any]:
    return {"inputs": batch["input_ids"], "attention_mask": batch["attention_mask"]}


MASKED_LM = Conversion(
    architecture="PerceiverForMaskedLM",
    kind="Perceiver language model",
    encoder=TextEncoderConfig,
    training_fields=("token_dropout",),
    decoder=TextDecoderConfig,
    convert_config=convert_config,
    settings=_settings,
    pairs=lambda config: key_pairs(_num_layers(config)),
    task="mlm",
    hugging_face_inputs=_inputs,
    data=_data("masked"),
    processor=_processor,
)

SEQUENCE_CLASSIFICATION = Conversion(
    architecture="PerceiverForSequenceClassification",
    kind="Perceiver for classification of texts",
    encoder=TextEncoderConfig,
    training_fields=("token_dropout",),
    decoder=ClassificationDecoderConfig,
    convert_config=convert_classifier_config,
    settings=lambda config: _settings(config) | classification_settings(config.decoder),
    pairs=lambda config: _classifier_pairs(_num_layers(config)),
    task="text-classification",
    hugging_face_inputs=_inputs,
    data=_data("class"),
    processor=_processor,
)

CONVERSIONS = (MASKED_LM, SEQUENCE_CLASSIFICATION)
