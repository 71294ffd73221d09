"""Input adapter for tables of numeric columns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from perceiver_core import AdaptedInput, Batch, InputAdapter
from perceiver_plugins.table.config import TableEncoderConfig

MISSING_FRACTION = 0.1
"""Fraction of missing numbers in an example batch; arbitrary."""


class TableInputAdapter(InputAdapter):
    """Embed each column as one input position: ``number * weight + column``. Reads ``inputs`` of a batch.

    ``weight`` and ``column`` are learned vectors, one of each per column, as in the feature tokenizer of the
    FT-Transformer (arXiv 2106.11959, section 3.3). For a missing number (NaN), a learned vector that all columns share
    replaces ``number * weight``.

    A layer norm after the adapter divides an embedding by its norm. With ``weight`` and ``column`` of equal size,
    little more than the sign of a large number is left; with a larger ``column``, the result is almost linear in the
    number.

    Args:
        num_features: number m of columns.
        num_input_channels: channels c of a column's embedding.
        init_scale: standard deviation of the normal initialisation.
        column_init_scale: that of ``column``. Default: ``init_scale``.
        number_dropout: probability of replacing a number by the embedding of missing numbers in training.
    """

    def __init__(
        self,
        num_features: int,
        num_input_channels: int,
        init_scale: float = 0.02,
        column_init_scale: float | None = None,
        number_dropout: float = 0.0,
    ):
        super().__init__(num_input_channels)
        self.number_dropout = number_dropout
        column_scale = init_scale if column_init_scale is None else column_init_scale
        self.weight = nn.Parameter(torch.empty(num_features, num_input_channels).normal_(0.0, init_scale))
        self.columns = nn.Parameter(torch.empty(num_features, num_input_channels).normal_(0.0, column_scale))
        self.missing = nn.Parameter(torch.empty(num_input_channels).normal_(0.0, init_scale))

    @classmethod
    def from_config(cls, config: TableEncoderConfig) -> TableInputAdapter:
        return cls(
            config.num_features,
            config.num_input_channels,
            config.init_scale,
            config.column_init_scale,
            config.number_dropout,
        )

    @property
    def num_features(self) -> int:
        """Number m of columns."""
        return self.columns.shape[0]

    def check_data(self, data: Any) -> None:
        num_features = getattr(data, "num_features", None)
        if num_features is not None and num_features != self.num_features:
            raise ValueError(
                f"the data's num_features={num_features} does not fit the model's num_features={self.num_features} "
                "(give the data module the columns that the model was trained on)"
            )

    def example_batch(self, batch_size: int, generator: torch.Generator) -> Batch:
        shape = (batch_size, self.num_features)
        missing = torch.rand(shape, generator=generator) < MISSING_FRACTION
        return {"inputs": torch.randn(shape, generator=generator).masked_fill(missing, torch.nan)}

    def forward(self, batch: Batch) -> AdaptedInput:
        """Embed ``batch["inputs"]`` (b, m): standardised numbers, NaN where missing.

        Returns:
            The input array (b, m, c), without a padding mask.

        Raises:
            ValueError: if the number of columns is not ``num_features``.
        """
        inputs: Tensor = batch["inputs"]
        if inputs.dim() != 2 or inputs.shape[1] != self.num_features:
            raise ValueError(
                f"inputs of shape {tuple(inputs.shape)}: must be (examples, columns) with "
                f"num_features={self.num_features} columns"
            )
        missing = inputs.isnan()[..., None]
        if self.training and self.number_dropout:
            missing = missing | (torch.rand(missing.shape, device=missing.device) < self.number_dropout)
        # NaN is replaced before the product, as it would otherwise make the gradient of the weight NaN.
        numbers = torch.where(missing, 0.0, inputs.to(self.weight.dtype)[..., None])
        return AdaptedInput(torch.where(missing, self.missing, numbers * self.weight) + self.columns)
