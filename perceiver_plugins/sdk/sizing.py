"""Helpers for size rules, which choose defaults by the size of the data."""

from __future__ import annotations

import math
from typing import Any


def describe_size(num_examples: int, noun: str, datamodule: Any) -> str:
    """Describe the size of data: "10,003 texts, 77 classes".

    Args:
        num_examples: number of training examples.
        noun: what an example is, in the singular.
        datamodule: the data module, which may have ``num_classes`` or ``num_targets``.
    """
    counts = {noun: num_examples}
    for name, attribute in {"class": "num_classes", "target": "num_targets"}.items():
        count = _count(datamodule, attribute)
        if count is not None:
            counts[name] = count
    return ", ".join(f"{count:,} {_plural(name, count)}" for name, count in counts.items())


def scaled_epochs(num_examples: int, total: int, minimum: int, maximum: int) -> int:
    """Return the number of epochs in which a model sees about ``total`` examples, repetitions included.

    Args:
        num_examples: number of training examples.
        total: number of examples to train on.
        minimum: smallest number of epochs.
        maximum: largest number of epochs.
    """
    return min(maximum, max(minimum, math.ceil(total / num_examples)))


def _count(datamodule: Any, attribute: str) -> int | None:
    try:
        value = getattr(datamodule, attribute, None)
    except Exception:  # data with numbers has no classes, and data with classes no targets
        return None
    return value if isinstance(value, int) else None


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}es" if noun.endswith("s") else f"{noun}s"
