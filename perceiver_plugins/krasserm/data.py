"""Descriptions of the data of models of krasserm/perceiver-io, which prediction needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytorch_lightning.utilities import rank_zero_warn
from transformers import PreTrainedTokenizerBase

from perceiver_core import PerceiverARConfig, PerceiverConfig
from perceiver_plugins.image.data.transforms import ImageFormat, match_channels
from perceiver_plugins.krasserm.files import BYTES, Original
from perceiver_plugins.music.events import EventTokenizer
from perceiver_plugins.text.tokenizers import PERCEIVER_TOKENIZER, TokenizerError, load_tokenizer, serialize_tokenizer
from perceiver_registry.description import ModelWarning

NUM_BYTE_TOKENS = 262
"""Vocabulary size of the byte tokenizer: 256 bytes and six special tokens."""

BYTE_TOKENIZERS = (BYTES, PERCEIVER_TOKENIZER, "krasserm/perceiver-io-mlm")
"""Names of the byte tokenizer."""


def describe_texts(config: PerceiverConfig[Any, Any], original: Original, target: str) -> dict[str, Any]:
    """Describe the texts of a model.

    If the tokenizer cannot be loaded, the description is empty: the model can be converted and trained, but not used
    for prediction.

    Args:
        config: the converted configuration.
        original: the original model. If it has no tokenizer option and a vocabulary of 262 tokens, its tokenizer is
            the byte tokenizer.
        target: "masked" or "class".
    """
    tokenizer, options = _tokenizer(original, config.encoder.vocab_size)
    if tokenizer is None:
        return {}
    return _description(tokenizer, config.encoder.max_seq_len, target) | {
        "add_special_tokens": options.get("add_special_tokens", False),
        "add_eos_token": options.get("add_eos_token", False),
    }


def describe_prompts(config: PerceiverARConfig[Any, Any], original: Original) -> dict[str, Any]:
    """Describe the texts of a causal language model, which do not begin with a special token.

    The description may be empty, as that of :func:`describe_texts`.
    """
    tokenizer, _ = _tokenizer(original, config.encoder.vocab_size)
    if tokenizer is None:
        return {}
    return _description(tokenizer, config.max_seq_len, "next") | {
        "padding_side": "left",
        "truncation_side": "left",
        "add_special_tokens": False,
        "add_eos_token": False,
        "add_bos_token": False,
    }


def _tokenizer(original: Original, vocab_size: int) -> tuple[PreTrainedTokenizerBase | None, Mapping[str, Any]]:
    """Return a model's tokenizer, None if it is unknown or cannot be loaded, and the text options."""
    options = original.text_options()
    name = options.get("tokenizer") or (BYTES if vocab_size == NUM_BYTE_TOKENS else None)
    if name is None:
        return None, options
    try:
        tokenizer = load_tokenizer(PERCEIVER_TOKENIZER if name in BYTE_TOKENIZERS else name)
    except TokenizerError as error:
        rank_zero_warn(f"the model cannot be used for prediction: {error}", category=ModelWarning)
        return None, options
    tokenizer.padding_side = options.get("padding_side", tokenizer.padding_side)
    return tokenizer, options


def _description(tokenizer: PreTrainedTokenizerBase, max_seq_len: int, target: str) -> dict[str, Any]:
    """Return the entries that descriptions of texts have in common."""
    return {
        "tokenizer": serialize_tokenizer(tokenizer),
        "max_seq_len": max_seq_len,
        "padding_side": tokenizer.padding_side,
        "truncation_side": tokenizer.truncation_side,
        "target": target,
    }


def describe_events(config: PerceiverARConfig[Any, Any], original: Original) -> dict[str, Any]:
    """Describe the MIDI events of a model of symbolic music."""
    return {"tokenizer": EventTokenizer().description(), "max_seq_len": config.max_seq_len}


def describe_images(config: PerceiverConfig[Any, Any], original: Original) -> dict[str, Any]:
    """Describe the images of a model. By default, pixels are normalised to -1 to 1, as by perceiver-io."""
    encoder, options = config.encoder, original.image_options()
    mean, std = (
        match_channels(tuple(value) if isinstance(value, list | tuple) else (value,), encoder.num_channels)
        for value in (options.get("mean", 0.5), options.get("std", 0.5))
    )
    image_format = ImageFormat(encoder.max_resolution, encoder.num_channels, mean, std, options.get("crop_pct", 1.0))
    return image_format.description()


def describe_frames(config: PerceiverConfig[Any, Any], original: Original) -> dict[str, Any]:
    """Describe the video frames of an optical flow model."""
    return {"image_size": list(config.encoder.image_size), "downscale": 1}
