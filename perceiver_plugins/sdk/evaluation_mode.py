"""Evaluation mode of modules for the duration of a context."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Context manager in which a module is in evaluation mode. The mode of each of its submodules is restored."""
    in_training = [each for each in module.modules() if each.training]
    module.eval()
    try:
        yield
    finally:
        for each in in_training:
            each.training = True
