"""Defaults for images by the number of training examples and the size of the images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perceiver_plugins.sdk.sizing import DataSize
from perceiver_registry import SizedDefaults

TASKS = ("image-classification", "classification")
"""Tasks that have a rule."""

TRAINED_PIXELS = 100_000_000
"""Pixels to train on, repetitions included: about 98,000 images of 32x32, or five CPU minutes of the default model
(python -m benchmarks own-data --set cifar10)."""

MIN_EPOCHS, MAX_EPOCHS = 5, 60
"""Limits of the number of epochs. Arbitrary."""


def size_rule(datamodule: Any, task: str, values: Mapping[str, Any]) -> SizedDefaults | None:
    """Return the defaults for images with a class; None for other tasks and data of unknown size.

    Args:
        datamodule: the data module.
        task: name of the task.
        values: values of the run by dotted flag.
    """
    size = DataSize.of(datamodule) if task in TASKS else None
    image_size = getattr(datamodule, "image_size", None)
    if size is None or image_size is None:
        return None
    height, width = image_size
    return SizedDefaults(f"{size.describe('image')}, {height}x{width} pixels", choose_defaults(size, height * width))


def choose_defaults(size: DataSize, num_pixels: int) -> dict[str, Any]:
    """Return the defaults for data of a size, by dotted flag.

    Args:
        size: the size of the data.
        num_pixels: pixels of an image.
    """
    # The task's default label smoothing would raise the probabilities of all absent classes.
    smoothing = {"task.label_smoothing": 0.0} if size.multi_label else {}
    return {**size.duration(size.epochs(TRAINED_PIXELS // num_pixels, MIN_EPOCHS, MAX_EPOCHS)), **smoothing}
