"""Full-precision labels in runs of reduced precision."""

from __future__ import annotations

from typing import Any

from pytorch_lightning.plugins import Precision


def keep_labels(precision: Precision) -> None:
    """Exclude labels from a precision plugin's conversion of batches.

    Plugins such as that of ``bf16-true`` convert the whole batch. Regression targets would lose digits; the module
    converts them after they are standardised.

    Args:
        precision: the plugin, which is changed in place.
    """
    if isinstance(precision.convert_input, _KeepLabels):
        return
    precision.convert_input = _KeepLabels(precision.convert_input)  # type: ignore[assignment, method-assign]


class _KeepLabels:
    """Conversion of batches without their labels."""

    def __init__(self, convert: Any) -> None:
        self.convert = convert

    def __call__(self, batch: Any) -> Any:
        converted = self.convert(batch)
        if isinstance(batch, dict) and "labels" in batch:
            converted["labels"] = batch["labels"]
        return converted
