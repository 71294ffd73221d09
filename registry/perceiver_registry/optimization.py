"""Optimizers and learning-rate schedules by name. The SDK is imported at the first look-up."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

SDK = "perceiver_plugins.sdk.tasks.optimizers"
"""Module that implements the look-up."""


def find_optimizer(name: str) -> type:
    """Find an optimizer class of torch or timm by its name (``AdamW``, ``Lamb``, ``torch.optim.SGD``).

    Raises:
        UserError: if it does not exist; the message suggests similar names.
    """
    return importlib.import_module(SDK).find_optimizer(name)


def find_lr_scheduler(name: str) -> Callable[..., Any]:
    """Find a learning-rate schedule by its name (``CosineWithWarmup``, ``StepLR``).

    Raises:
        UserError: if it does not exist; the message suggests similar names.
    """
    return importlib.import_module(SDK).find_lr_scheduler(name)


def optimizer_names() -> list[str]:
    """Return the names of the known optimizers."""
    return [*importlib.import_module(SDK).optimizers()]


def lr_scheduler_names() -> list[str]:
    """Return the names of the known learning-rate schedules."""
    return [*importlib.import_module(SDK).lr_schedulers()]
