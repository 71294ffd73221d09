"""Configuration of the input adapter of music."""

from __future__ import annotations

from dataclasses import dataclass

from perceiver_plugins.generation.config import TokenEncoderConfig


@dataclass
class MusicEncoderConfig(TokenEncoderConfig):
    """Configuration of an encoder of MIDI-like tokens of music.

    Args:
        vocab_size: number of tokens.
        num_input_channels: channels of the embeddings.
    """

    vocab_size: int = 518
