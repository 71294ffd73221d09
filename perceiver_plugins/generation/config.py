"""Configurations of the adapters of causal models."""

from __future__ import annotations

from dataclasses import dataclass

from perceiver_core.config import DecoderConfig, EncoderConfig, require_positive


@dataclass
class TokenEncoderConfig(EncoderConfig):
    """Configuration of an encoder of tokens without positions.

    Args:
        vocab_size: size of the vocabulary; 262 for UTF-8 bytes and special tokens (the Perceiver tokenizer).
        num_input_channels: channels of the embeddings.
    """

    vocab_size: int = 262
    num_input_channels: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "vocab_size", "num_input_channels")


@dataclass
class NextTokenDecoderConfig(DecoderConfig):
    """Configuration of an output layer that predicts the token after each input.

    Args:
        tied: share the weight of the token embedding.
        bias: add a bias.
    """

    tied: bool = True
    bias: bool = True
