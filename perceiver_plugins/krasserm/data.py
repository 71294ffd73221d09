"""What prediction must know of the data that a model of krasserm's perceiver-io was made for."""

from __future__ import annotations

from typing import Any

from pytorch_lightning.utilities import rank_zero_warn

from perceiver_core import PerceiverConfig
from perceiver_plugins.image.data.transforms import ImageFormat, match_channels
from perceiver_plugins.krasserm.files import BYTES, Original
from perceiver_plugins.text.tokenizers import PERCEIVER_TOKENIZER, TokenizerError, load_tokenizer, serialize_tokenizer

NUM_BYTE_TOKENS = 262
"""Tokens of the tokenizer of UTF-8 bytes: the bytes, and six special tokens."""

BYTE_TOKENIZERS = (BYTES, PERCEIVER_TOKENIZER, "krasserm/perceiver-io-mlm")
"""Names of the tokenizer of UTF-8 bytes."""


def of_texts(config: PerceiverConfig[Any, Any], original: Original, target: str) -> dict[str, Any]:
    """What a reader of texts must know.

    A tokenizer that is out of reach is left out, with a warning: the model can be converted and trained all the same.

    Args:
        config: the model's configuration.
        original: the model there; if it names no tokenizer, 262 tokens are taken for UTF-8 bytes.
        target: "masked" or "class".
    """
    reading = original.texts()
    name = reading.get("tokenizer") or (BYTES if config.encoder.vocab_size == NUM_BYTE_TOKENS else None)
    if name is None:
        return {}
    try:
        tokenizer = load_tokenizer(PERCEIVER_TOKENIZER if name in BYTE_TOKENIZERS else name)
    except TokenizerError as error:
        rank_zero_warn(f"prediction will not be possible with this model: {error}")
        return {}
    tokenizer.padding_side = reading.get("padding_side", tokenizer.padding_side)
    return {
        "tokenizer": serialize_tokenizer(tokenizer),
        "max_seq_len": config.encoder.max_seq_len,
        "padding_side": tokenizer.padding_side,
        "truncation_side": tokenizer.truncation_side,
        "add_special_tokens": reading.get("add_special_tokens", False),
        "add_eos_token": reading.get("add_eos_token", False),
        "target": target,
    }


def of_images(config: PerceiverConfig[Any, Any], original: Original) -> dict[str, Any]:
    """What a reader of images must know. By default, pixels are from -1 to 1, as in its training."""
    encoder, reading = config.encoder, original.images()
    mean, std = (
        match_channels(tuple(value) if isinstance(value, list | tuple) else (value,), encoder.num_channels)
        for value in (reading.get("mean", 0.5), reading.get("std", 0.5))
    )
    image_format = ImageFormat(encoder.max_resolution, encoder.num_channels, mean, std, reading.get("crop_pct", 1.0))
    return image_format.description()


def of_frames(config: PerceiverConfig[Any, Any], original: Original) -> dict[str, Any]:
    """What a reader of frames must know."""
    return {"image_size": list(config.encoder.image_size), "downscale": 1}
