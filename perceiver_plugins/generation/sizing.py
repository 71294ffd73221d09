"""Defaults for sequences of tokens by the size of the training data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from perceiver_plugins.sdk.sizing import MAX_EPOCHS, TASK_WARMUP_STEPS
from perceiver_registry import SizedDefaults

TRAINED_TOKENS = 2_000_000
"""Tokens to predict in training, repetitions included: about 1,000 steps of the default model. Arbitrary."""


def size_rule(datamodule: Any, task: str, values: Mapping[str, Any]) -> SizedDefaults | None:
    """Return the number of epochs for a number of tokens; None if the number is unknown, as with streams.

    Warm-up has a tenth of the steps, but not more than the task's.

    Args:
        datamodule: the data module.
        task: name of the task.
        values: values of the run by dotted flag.
    """
    num_tokens = getattr(datamodule, "num_train_tokens", None)
    if not num_tokens:
        return None
    epochs = min(MAX_EPOCHS, max(1, round(TRAINED_TOKENS / num_tokens)))
    tokens_per_step = max(1, values["data.batch_size"] * values["model.num_latents"])
    num_steps, max_steps = math.ceil(epochs * num_tokens / tokens_per_step), values.get("trainer.max_steps") or -1
    warmup_steps = math.ceil((max_steps if max_steps > 0 else num_steps) / 10)
    short = {"lr_scheduler.warmup_steps": warmup_steps} if warmup_steps < TASK_WARMUP_STEPS else {}
    return SizedDefaults(f"{num_tokens:,} tokens", {"trainer.max_epochs": epochs, **short})
