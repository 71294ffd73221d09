"""Defaults for images by the number of training examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perceiver_plugins.sdk.sizing import DataSize
from perceiver_registry import SizedDefaults

TASKS = ("image-classification", "classification")
"""Tasks that have a rule."""


def size_rule(datamodule: Any, task: str, values: Mapping[str, Any]) -> SizedDefaults | None:
    """Return the defaults for images with a class; None for other tasks and data of unknown size.

    Args:
        datamodule: the data module.
        task: name of the task.
        values: values of the run by dotted flag.
    """
    size = DataSize.of(datamodule) if task in TASKS else None
    return SizedDefaults(size.describe("image"), choose_defaults(size)) if size else None


def choose_defaults(size: DataSize) -> dict[str, Any]:
    """Return the defaults for data of a size, by dotted flag."""
    return {"trainer.max_epochs": size.epochs()}
