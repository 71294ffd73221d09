"""Configuration of the table input adapter."""

from __future__ import annotations

from dataclasses import dataclass

from perceiver_core.config import EncoderConfig, require, require_positive


@dataclass
class TableEncoderConfig(EncoderConfig):
    """Configuration of an encoder of numeric columns.

    Args:
        num_features: number of columns, each of which is one input position.
        num_input_channels: channels of a column's embedding.
        column_init_scale: standard deviation of the initial column embeddings, to which numbers are added. Default:
            ``init_scale``. Where it is several times ``init_scale``, the layer norms of the model keep the size of a
            number, instead of little more than its sign.
        number_dropout: probability of replacing a number by the embedding of missing numbers in training.
    """

    num_features: int = 10
    num_input_channels: int = 64
    column_init_scale: float | None = None
    number_dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "num_features", "num_input_channels")
        require(
            self.column_init_scale is None or self.column_init_scale > 0.0,
            self,
            "column_init_scale",
            "must be greater than 0",
        )
        require(0.0 <= self.number_dropout < 1.0, self, "number_dropout", "must be at least 0 and less than 1")
