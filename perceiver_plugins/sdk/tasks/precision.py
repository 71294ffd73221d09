"""Labels in runs of reduced precision."""

from __future__ import annotations

from typing import Any

from pytorch_lightning.plugins import Precision


def keep_labels(precision: Precision) -> None:
    """Let a trainer's precision plugin leave the labels of a batch as they are.

    Plugins such as that of ``bf16-true`` convert all of a batch before a module sees it. Targets in their own units
    would lose their digits; the module rounds them once they are standardised.

    Args:
        precision: the plugin, which is changed.
    """
    if isinstance(precision.convert_input, _KeepLabels):
        return
    precision.convert_input = _KeepLabels(precision.convert_input)  # type: ignore[assignment, method-assign]


class _KeepLabels:
    """A conversion of batches that leaves their labels out."""

    def __init__(self, convert: Any) -> None:
        self.convert = convert

    def __call__(self, batch: Any) -> Any:
        converted = self.convert(batch)
        if isinstance(batch, dict) and "labels" in batch:
            converted["labels"] = batch["labels"]
        return converted
