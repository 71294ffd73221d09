"""Optimizer steps inside the backward pass.

Each gradient is used and freed as soon as it is computed, so that memory never has the gradients of the whole model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from perceiver_registry.errors import UserError

MIN_SIZE = 2**14
"""Parameters with fewer elements are left to ``optimizer.step()`` (arbitrary: their gradients take 64 KiB at most)."""


@contextlib.contextmanager
def stepping_in_backward(optimizer: Optimizer, min_size: int = MIN_SIZE) -> Iterator[None]:
    """Update each large parameter during ``loss.backward()``, and free its gradient.

    The training loop does not change: ``loss.backward()``, then ``optimizer.step()``, which updates the small
    parameters. Weights and optimizer state are the same as without this context. Clipping by the norm of all gradients
    and gradient accumulation are not possible.

    Args:
        optimizer: an optimizer of ``torch.optim`` other than ``LBFGS``.
        min_size: parameters with fewer elements are updated by ``optimizer.step()``.

    Raises:
        UserError: if the optimizer does not update each parameter independently.
    """
    check_updates_independently(optimizer)
    handles = [
        parameter.register_post_accumulate_grad_hook(_Step(optimizer, group))
        for group in optimizer.param_groups
        for parameter in group["params"]
        if parameter.requires_grad and parameter.numel() >= min_size
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def check_updates_independently(optimizer: Optimizer) -> None:
    """Check that an optimizer updates each parameter from that parameter's gradient and state only.

    Raises:
        UserError: if it does not, or if that is unknown.
    """
    # Some optimizers of timm count the steps of a whole group, or divide by the norm of all gradients.
    if type(optimizer).__module__.partition(".")[0] != "torch" or isinstance(optimizer, torch.optim.LBFGS):
        raise UserError(
            f"--optimizer.in_backward=true: cannot be combined with --optimizer={type(optimizer).__name__}, which may "
            "need all gradients at once (choose one of torch.optim, such as AdamW)"
        )


class _Step:
    """Hook that updates one parameter of a group and frees its gradient."""

    def __init__(self, optimizer: Optimizer, group: dict[str, Any]):
        self.optimizer, self.group = optimizer, group

    def __call__(self, parameter: nn.Parameter) -> None:
        # A group of this parameter only, with the group's current learning rate.
        groups = self.optimizer.param_groups
        self.optimizer.param_groups = [{**self.group, "params": [parameter]}]
        try:
            self.optimizer.step()
        finally:
            self.optimizer.param_groups = groups
        parameter.grad = None
