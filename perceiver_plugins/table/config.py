"""Configuration of the table input adapter."""

from __future__ import annotations

from dataclasses import dataclass

from perceiver_core.config import EncoderConfig, require_positive


@dataclass
class TableEncoderConfig(EncoderConfig):
    """An encoder of numbers in columns.

    Args:
        num_features: number of columns, each of which is one place of the input.
        num_input_channels: channels that a column's number is mapped to.
    """

    num_features: int = 10
    num_input_channels: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "num_features", "num_input_channels")
