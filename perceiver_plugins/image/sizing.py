"""Defaults for images by the number of training examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perceiver_plugins.sdk.sizing import describe_size, scaled_epochs
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
    num_examples = getattr(datamodule, "num_train_examples", None) if task in TASKS else None
    if not num_examples:
        return None
    return SizedDefaults(describe_size(num_examples, "image", datamodule), image_defaults(num_examples))


def image_defaults(num_examples: int) -> dict[str, Any]:
    """Return the defaults for images.

    The figures are arbitrary: about 4,000 batches of 32.

    Args:
        num_examples: number of training images.
    """
    return {"trainer.max_epochs": scaled_epochs(num_examples, 128_000, 3, 40)}
