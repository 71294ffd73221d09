"""Size of the training data, by which the size rules of the built-in input adapters choose defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

TRAINED_EXAMPLES = 128_000
"""Examples to train on, repetitions included: 4,000 batches of 32. Arbitrary."""

MIN_EPOCHS, MAX_EPOCHS = 3, 40
"""Limits of the number of epochs. Arbitrary."""

TASK_WARMUP_STEPS = 100
"""Warm-up steps of the tasks of texts and images, which a short run shortens."""

LABEL_SMOOTHING = 0.1
"""Label smoothing of classifiers of texts and tables, as in Szegedy et al., arXiv 1512.00567."""


@dataclass(frozen=True)
class DataSize:
    """Size of the training data.

    Attributes:
        num_examples: number of training examples.
        num_classes: number of classes; None: the data has none.
        num_targets: number of targets to predict for each example; None: the data has none.
        batch_size: examples per step.
        num_validation_examples: number of validation examples; None: unknown.
        multi_label: examples have any number of classes.
    """

    num_examples: int
    num_classes: int | None = None
    num_targets: int | None = None
    batch_size: int = 1
    num_validation_examples: int | None = None
    multi_label: bool = False

    @classmethod
    def of(cls, datamodule: Any) -> DataSize | None:
        """Return the size of a data module's training data; None if it is unknown, as with streams."""
        num_examples = getattr(datamodule, "num_train_examples", None)
        if not num_examples:
            return None
        return cls(
            num_examples,
            num_classes=_count(datamodule, "num_classes"),
            num_targets=_count(datamodule, "num_targets"),
            batch_size=_count(datamodule, "batch_size") or 1,
            num_validation_examples=_count(datamodule, "num_validation_examples"),
            multi_label=bool(getattr(datamodule, "multi_label", False)),
        )

    def describe(self, noun: str) -> str:
        """Describe the size: "10,003 texts, 77 classes".

        Args:
            noun: what an example is, in the singular.
        """
        counts = {noun: self.num_examples, "class": self.num_classes, "target": self.num_targets}
        known = ((name, count) for name, count in counts.items() if count is not None)
        return ", ".join(f"{count:,} {_plural(name, count)}" for name, count in known)

    def epochs(
        self, trained_examples: int = TRAINED_EXAMPLES, minimum: int = MIN_EPOCHS, maximum: int = MAX_EPOCHS
    ) -> int:
        """Return the number of epochs with about a number of training examples, repetitions included.

        Args:
            trained_examples: the number of examples.
            minimum: fewest epochs.
            maximum: most epochs.
        """
        return min(maximum, max(minimum, math.ceil(trained_examples / self.num_examples)))

    def smoothing(self) -> dict[str, float]:
        """Return the default label smoothing, empty unless examples have one class each.

        Most classes of a multi-label example are absent, and smoothing would raise all of their probabilities.
        """
        has_smoothing = self.num_classes is not None and not self.multi_label
        return {"task.label_smoothing": LABEL_SMOOTHING} if has_smoothing else {}

    def duration(self, epochs: int) -> dict[str, int]:
        """Return the defaults for a number of epochs: at most a tenth of the steps are for warm-up."""
        warmup_steps = max(1, epochs * self.num_examples // (10 * self.batch_size))
        is_short = warmup_steps < TASK_WARMUP_STEPS
        return {"trainer.max_epochs": epochs} | ({"lr_scheduler.warmup_steps": warmup_steps} if is_short else {})


def _count(datamodule: Any, attribute: str) -> int | None:
    try:
        value = getattr(datamodule, attribute, None)
    except Exception:  # data with numbers has no classes, and data with classes no targets
        return None
    return value if isinstance(value, int) else None


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}es" if noun.endswith("s") else f"{noun}s"
