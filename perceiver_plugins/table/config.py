"""Configuration of the table input adapter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from perceiver_core.config import EncoderConfig, require, require_positive
from perceiver_plugins.composite.config import create_part_configs

TABLE = "table"
"""Modality of numbers and categories in a composite input."""


@dataclass
class TableEncoderConfig(EncoderConfig):
    """Configuration of an encoder of columns of numbers and categories.

    Args:
        num_features: number of numeric features, each of which is one input position.
        num_input_channels: channels of a column's embedding.
        column_init_scale: standard deviation of the initial column embeddings, to which numbers are added. Default:
            ``init_scale``. With several times ``init_scale``, the model's layer norms preserve the size of a number
            instead of little more than its sign.
        number_dropout: probability of replacing a number or category by the embedding of missing values in training.
        num_categories: number of categories of each categorical column, each of which is one input position. None:
            all columns contain numbers.
        category_dropout: probability of replacing a category by the embedding of unseen categories in training, which
            is not trained otherwise. The default is arbitrary.
        columns: input adapters of columns of texts and images, each with its registered name under ``adapter`` and its
            fields: ``{"review": {"adapter": "text", "vocab_size": 262}}``. With them, the table is a composite input.
            None: there are no such columns.
    """

    num_features: int = 10
    num_input_channels: int = 64
    column_init_scale: float | None = None
    number_dropout: float = 0.0
    num_categories: list[int] | None = None
    category_dropout: float = 0.02
    columns: dict[str, dict[str, Any]] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "num_input_channels")
        sizes = self.num_categories or []
        require(all(size >= 0 for size in sizes), self, "num_categories", "must not be negative")
        require(self.num_features >= (0 if sizes or self.columns else 1), self, "num_features", "must be at least 1")
        require(
            self.column_init_scale is None or self.column_init_scale > 0.0,
            self,
            "column_init_scale",
            "must be greater than 0",
        )
        for name in ("number_dropout", "category_dropout"):
            require(0.0 <= getattr(self, name) < 1.0, self, name, "must be at least 0 and less than 1")
        require(TABLE not in (self.columns or {}), self, "columns", f"{TABLE!r} is the name of the other columns")
        self.column_configs()  # checks them

    def column_configs(self) -> dict[str, EncoderConfig]:
        """Return the configuration of the input adapter of each column in ``columns``.

        Raises:
            UserError, ValueError: as :func:`~perceiver_plugins.composite.config.create_part_configs`.
        """
        return create_part_configs(self.columns or {}, self.init_scale, "encoder.columns")
