"""The optimizer inside the backward pass: each gradient is used and freed as soon as it is there.

Training then never holds the gradients of the whole model at once, which are as large as its weights.
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
"""Parameters with fewer elements wait for the ordinary step: their gradients take no room worth the calls."""


@contextlib.contextmanager
def stepping_in_backward(optimizer: Optimizer, min_size: int = MIN_SIZE) -> Iterator[None]:
    """Within this context, ``loss.backward()`` updates each large parameter and frees its gradient at once.

    The training loop stays as it is: ``loss.backward()``, then ``optimizer.step()``, which updates what is left, the
    small parameters. The weights become the same as without this context, and so does the optimizer's state, whose
    layout is the ordinary one. What needs all gradients at once, such as clipping by their norm, or gradients of
    several backward passes, cannot be done.

    Args:
        optimizer: an optimizer of ``torch.optim`` that updates each parameter by itself: any but ``LBFGS``.
        min_size: parameters with fewer elements wait for the ordinary step.

    Raises:
        UserError: if the optimizer does not update each parameter by itself.
    """
    check_steps_alone(optimizer)
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


def check_steps_alone(optimizer: Optimizer) -> None:
    """Checks that an optimizer updates each parameter from its own gradient and state alone.

    Raises:
        UserError: if it does not, or if that is not known.
    """
    # Some of timm's count the steps of a whole group, or divide by the norm of all gradients.
    if type(optimizer).__module__.partition(".")[0] != "torch" or isinstance(optimizer, torch.optim.LBFGS):
        raise UserError(
            f"--optimizer.in_backward=true does not go with --optimizer={type(optimizer).__name__}, "
            "which may look at all gradients at once: choose one of torch.optim, such as AdamW"
        )


class _Step:
    """Updates one parameter of an optimizer's group and frees its gradient."""

    def __init__(self, optimizer: Optimizer, group: dict[str, Any]):
        self.optimizer, self.group = optimizer, group

    def __call__(self, parameter: nn.Parameter) -> None:
        # The optimizer sees this parameter alone, with the group's present learning rate and its own state.
        groups = self.optimizer.param_groups
        self.optimizer.param_groups = [{**self.group, "params": [parameter]}]
        try:
            self.optimizer.step()
        finally:
            self.optimizer.param_groups = groups
        parameter.grad = None
