"""Table of a model's layers and parameters, printed when training starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytorch_lightning.callbacks import ModelSummary
from pytorch_lightning.utilities.model_summary.model_summary import get_formatted_model_size, get_human_readable_count

from perceiver_cli.tables import print_table

COLUMNS = ("Name", "Type", "Params", "Mode")
"""Columns of Lightning's summary to show. Others need example inputs, which tasks lack."""


class ParameterSummary(ModelSummary):
    """Print a model's layers, their parameters and the total size."""

    @staticmethod
    def summarize(
        summary_data: list[tuple[str, list[str]]],
        total_parameters: int,
        trainable_parameters: int,
        model_size: float,
        *_: Any,
        **__: Any,
    ) -> None:
        columns: dict[str, Sequence[str]] = {title: cells for title, cells in summary_data if title in COLUMNS}
        print_table(dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
        counts = {"trainable": trainable_parameters, "frozen": total_parameters - trainable_parameters}
        shown = [f"{get_human_readable_count(count).strip()} {name}" for name, count in counts.items() if count]
        size = get_formatted_model_size(model_size).strip()
        print(f"\nParameters: {', '.join(shown) or 'none'} ({size} MB)\n")
