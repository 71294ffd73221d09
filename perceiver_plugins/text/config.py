"""Configurations of the text adapters."""

from __future__ import annotations

from dataclasses import dataclass

from perceiver_core.config import DecoderConfig, EncoderConfig, require_positive
from perceiver_core.config import PerceiverConfig as PerceiverConfig  # an export of the package


@dataclass
class TextEncoderConfig(EncoderConfig):
    """An encoder of token or byte sequences.

    Args:
        vocab_size: number of tokens; 262 for the Perceiver's UTF-8 bytes and special tokens.
        max_seq_len: the longest sequence, and the number of learned positions.
        num_input_channels: channels of a token's embedding.
    """

    vocab_size: int = 262
    max_seq_len: int = 512
    num_input_channels: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "vocab_size", "max_seq_len", "num_input_channels")


@dataclass
class TextDecoderConfig(DecoderConfig):
    """A decoder that predicts a token for each place of a sequence.

    Args:
        vocab_size: number of tokens.
        max_seq_len: the longest sequence, and the number of learned output queries.
        num_output_query_channels: channels of an output query. None: those of the input's embeddings, which are then
            the output layer's weights as well (tied).
    """

    vocab_size: int = 262
    max_seq_len: int = 512
    num_output_query_channels: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "vocab_size", "max_seq_len", "num_output_query_channels")
