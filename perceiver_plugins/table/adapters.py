"""Input adapter for tables of numbers and categories."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from perceiver_core import AdaptedInput, Batch, InputAdapter
from perceiver_plugins.composite.adapters import CompositeInputAdapter, create_parts
from perceiver_plugins.table.config import TABLE, TableEncoderConfig

MISSING_FRACTION = 0.1
"""Fraction of missing numbers in an example batch; arbitrary."""

MISSING_CATEGORY, UNSEEN_CATEGORY, FIRST_CATEGORY = 0, 1, 2
"""Ids of missing categories, of unseen categories, and of the first category of the training data."""


class TableInputAdapter(InputAdapter):
    """Embed each column as one input position: ``number * weight + column``, or ``category + column``.

    Reads ``inputs`` of a batch and, with categorical columns, ``category_ids``.

    ``weight`` and ``column`` are learned vectors, one of each per column, as in the feature tokenizer of the
    FT-Transformer (arXiv 2106.11959, section 3.3). ``category`` is the learned vector of a category of the column; its
    unseen categories share one. For a missing value, a learned vector that all columns share replaces
    ``number * weight`` or ``category``.

    A layer norm after the adapter divides an embedding by its norm. With ``weight`` and ``column`` of equal size,
    little more than the sign of a large number is left; with a larger ``column``, the result is almost linear in the
    number.

    Args:
        num_features: number m of numeric features.
        num_input_channels: channels c of a column's embedding.
        init_scale: standard deviation of the normal initialisation.
        column_init_scale: standard deviation of the initial ``column``. Default: ``init_scale``.
        number_dropout: probability of replacing a number or category by the embedding of missing values in training.
        num_categories: number of categories of each of the k categorical columns.
        category_dropout: probability of replacing a category by the vector of unseen categories in training.
    """

    first_rows: Tensor
    last_ids: Tensor

    def __init__(
        self,
        num_features: int,
        num_input_channels: int,
        init_scale: float = 0.02,
        column_init_scale: float | None = None,
        number_dropout: float = 0.0,
        num_categories: Sequence[int] = (),
        category_dropout: float = 0.0,
    ):
        super().__init__(num_input_channels)
        self.number_dropout = number_dropout
        self.category_dropout = category_dropout
        self.num_features = num_features
        self.num_categories = tuple(num_categories)
        column_scale = init_scale if column_init_scale is None else column_init_scale

        def vectors(count: int, scale: float) -> nn.Parameter:
            return nn.Parameter(torch.empty(count, num_input_channels).normal_(0.0, scale))

        self.weight = vectors(num_features, init_scale) if num_features else None
        self.columns = vectors(num_features + len(self.num_categories), column_scale)
        self.missing = nn.Parameter(torch.empty(num_input_channels).normal_(0.0, init_scale))
        self.categories = None
        if self.num_categories:
            # The rows of a column: its unseen categories, then its categories.
            sizes = [size + 1 for size in self.num_categories]
            self.categories = vectors(sum(sizes), init_scale)
            first_rows = torch.tensor([0, *accumulate(sizes)][:-1])
            self.register_buffer("first_rows", first_rows, persistent=False)
            self.register_buffer("last_ids", torch.tensor(sizes), persistent=False)

    @classmethod
    def from_config(cls, config: TableEncoderConfig) -> InputAdapter:
        """Build the adapter or, with ``config.columns``, a composite of it and the adapters of these columns."""
        parts: dict[str, InputAdapter] = {}
        if config.num_features or config.num_categories:
            parts[TABLE] = cls(
                config.num_features,
                config.num_input_channels,
                config.init_scale,
                config.column_init_scale,
                config.number_dropout,
                config.num_categories or (),
                config.category_dropout,
            )
        if not config.columns:
            return parts[TABLE]
        parts |= create_parts(config.column_configs())
        return CompositeInputAdapter(parts, init_scale=config.init_scale, optional=list(config.columns))

    def check_data(self, data: Any) -> None:
        num_features = getattr(data, "num_features", None)
        if num_features is not None and num_features != self.num_features:
            raise ValueError(
                f"the data's num_features={num_features} does not fit the model's num_features={self.num_features} "
                "(give the data module the columns that the model was trained on)"
            )
        num_categories = getattr(data, "num_categories", None)
        if num_features is not None and tuple(num_categories or ()) != self.num_categories:
            raise ValueError(
                f"the data's num_categories={num_categories} does not fit the model's "
                f"num_categories={list(self.num_categories) or None} (give the data module the columns that the model "
                "was trained on)"
            )

    def example_batch(self, batch_size: int, generator: torch.Generator) -> Batch:
        batch: dict[str, Tensor] = {}
        if self.num_features:
            shape = (batch_size, self.num_features)
            missing = torch.rand(shape, generator=generator) < MISSING_FRACTION
            batch["inputs"] = torch.randn(shape, generator=generator).masked_fill(missing, torch.nan)
        if self.num_categories:
            ids = [
                torch.randint(size + FIRST_CATEGORY, (batch_size,), generator=generator) for size in self.num_categories
            ]
            batch["category_ids"] = torch.stack(ids, dim=1)
        return batch

    def forward(self, batch: Batch) -> AdaptedInput:
        """Embed the columns of a table.

        Args:
            batch: ``inputs`` (b, m): scaled numbers, NaN where missing. With categorical columns, ``category_ids``
                (b, k), int64: 0 where missing, 1 for an unseen category, otherwise 2, 3, ...; ids above that of the
                last category are unseen.

        Returns:
            The input array (b, m + k, c), numbers first, without a padding mask.

        Raises:
            KeyError: if ``category_ids`` is missing.
            ValueError: if the number of columns differs from ``num_features`` or the length of ``num_categories``.
        """
        embedded = [self._embed_numbers(batch["inputs"])] if self.weight is not None else []
        if self.categories is not None:
            category_ids = batch.get("category_ids")  # optional: tables of numbers lack it
            if category_ids is None:
                raise KeyError("category_ids")
            embedded.append(self._embed_categories(category_ids))
        return AdaptedInput((embedded[0] if len(embedded) == 1 else torch.cat(embedded, dim=1)) + self.columns)

    def _embed_numbers(self, inputs: Tensor) -> Tensor:
        assert self.weight is not None
        if inputs.dim() != 2 or inputs.shape[1] != self.num_features:
            raise ValueError(
                f"inputs of shape {tuple(inputs.shape)}: must be (examples, columns) with "
                f"num_features={self.num_features} columns"
            )
        missing = self._drop(inputs.isnan()[..., None], self.number_dropout)
        # NaN is replaced before the product, as it would otherwise make the gradient of the weight NaN.
        numbers = torch.where(missing, 0.0, inputs.to(self.weight.dtype)[..., None])
        return torch.where(missing, self.missing, numbers * self.weight)

    def _embed_categories(self, ids: Tensor) -> Tensor:
        assert self.categories is not None
        if ids.dim() != 2 or ids.shape[1] != len(self.num_categories):
            raise ValueError(
                f"category_ids of shape {tuple(ids.shape)}: must be (examples, columns) with "
                f"{len(self.num_categories)} columns, as num_categories"
            )
        missing = self._drop((ids == MISSING_CATEGORY)[..., None], self.number_dropout)
        unseen = self._drop((ids < FIRST_CATEGORY) | (ids > self.last_ids), self.category_dropout)
        rows = self.first_rows + torch.where(unseen, 0, ids - UNSEEN_CATEGORY)
        return torch.where(missing, self.missing, nn.functional.embedding(rows, self.categories))

    def _drop(self, replaced: Tensor, probability: float) -> Tensor:
        """Add random values to a mask of replaced values, in training only."""
        if not (self.training and probability):
            return replaced
        return replaced | (torch.rand(replaced.shape, device=replaced.device) < probability)
