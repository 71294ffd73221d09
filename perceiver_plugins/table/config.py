"""Configuration of the table input adapter."""

from __future__ import annotations

from dataclasses import dataclass

from perceiver_core.config import EncoderConfig, require_positive


@dataclass
class TableEncoderConfig(EncoderConfig):
    """Configuration of an encoder of numeric columns.

    Args:
        num_features: number of columns, each of which is one input position.
        num_input_channels: channels of a column's embedding.
    """

    num_features: int = 10
    num_input_channels: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "num_features", "num_input_channels")
