"""Configurations of the text adapters."""

from __future__ import annotations

from dataclasses import dataclass

from perceiver_core.config import DecoderConfig, EncoderConfig, require_positive
from perceiver_core.config import PerceiverConfig as PerceiverConfig  # re-exported by the package


@dataclass
class TextEncoderConfig(EncoderConfig):
    """Configuration of an encoder of token or byte sequences.

    Args:
        vocab_size: size of the vocabulary; 262 for UTF-8 bytes and special tokens (the Perceiver tokenizer).
        max_seq_len: length of the longest sequence, and number of learned positions.
        num_input_channels: channels of the embeddings.
    """

    vocab_size: int = 262
    max_seq_len: int = 512
    num_input_channels: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "vocab_size", "max_seq_len", "num_input_channels")


@dataclass
class TextDecoderConfig(DecoderConfig):
    """Configuration of a decoder that predicts a token for each position of a sequence.

    Args:
        vocab_size: size of the vocabulary.
        max_seq_len: length of the longest sequence, and number of learned output queries.
        num_output_query_channels: channels of an output query. None: those of the token embedding, whose weight the
            output layer shares (tied weights).
    """

    vocab_size: int = 262
    max_seq_len: int = 512
    num_output_query_channels: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "vocab_size", "max_seq_len", "num_output_query_channels")
