"""Size rule of the built-in input adapters, which chooses defaults by the size of the data."""

from __future__ import annotations

import math
from typing import Any

from perceiver_registry import SizedDefaults

TRAINED_EXAMPLES = 128_000
"""Examples to train on, repetitions included: 4,000 batches of 32. Arbitrary."""

MIN_EPOCHS, MAX_EPOCHS = 3, 40
"""Limits of the number of epochs. Arbitrary."""


def size_data(datamodule: Any, noun: str) -> SizedDefaults | None:
    """Return the size of the training data and the defaults for it; None if the size is unknown.

    Args:
        datamodule: the data module, which may have ``num_train_examples``, ``num_classes`` or ``num_targets``.
        noun: what an example is, in the singular.
    """
    num_examples = getattr(datamodule, "num_train_examples", None)
    if not num_examples:
        return None
    return SizedDefaults(_describe(num_examples, noun, datamodule), defaults_by_examples(num_examples))


def defaults_by_examples(num_examples: int) -> dict[str, Any]:
    """Return the defaults for a number of training examples, by dotted flag."""
    epochs = math.ceil(TRAINED_EXAMPLES / num_examples)
    return {"trainer.max_epochs": min(MAX_EPOCHS, max(MIN_EPOCHS, epochs))}


def _describe(num_examples: int, noun: str, datamodule: Any) -> str:
    """Describe the size of data: "10,003 texts, 77 classes"."""
    counts = {noun: num_examples}
    for name, attribute in {"class": "num_classes", "target": "num_targets"}.items():
        count = _count(datamodule, attribute)
        if count is not None:
            counts[name] = count
    return ", ".join(f"{count:,} {_plural(name, count)}" for name, count in counts.items())


def _count(datamodule: Any, attribute: str) -> int | None:
    try:
        value = getattr(datamodule, attribute, None)
    except Exception:  # data with numbers has no classes, and data with classes no targets
        return None
    return value if isinstance(value, int) else None


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}es" if noun.endswith("s") else f"{noun}s"
