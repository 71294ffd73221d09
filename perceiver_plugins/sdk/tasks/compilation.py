"""``torch.compile`` of single attention layers, for training."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from perceiver_core import CrossAttentionLayer, SelfAttentionLayer
from perceiver_registry import UserError
from perceiver_registry.errors import in_one_line


def compile_layers(model: nn.Module, device: torch.device | str = "cpu", **options: Any) -> None:
    """Compile the attention layers of a model in place, when they first run.

    Layers of equal structure share the compiled code. Names in checkpoints do not change. Results are equal up to
    rounding; dropout draws other random numbers.

    Args:
        model: a model with Perceiver layers.
        device: device of the model.
        options: options of ``torch.compile``.

    Raises:
        UserError: if compilation for the device fails, usually because a C++ compiler is missing.
    """
    _check_compiler(torch.device(device), options)
    for module in model.modules():
        if isinstance(module, CrossAttentionLayer | SelfAttentionLayer):
            module.compile(**options)


def _check_compiler(device: torch.device, options: dict[str, Any]) -> None:
    # Compile a small function: there is no other complete check of the requirements.
    try:
        torch.compile(torch.sigmoid, **options)(torch.ones(8, device=device))
    except Exception as error:  # of many types, from a missing compiler to a failing one
        needed = "a C++ compiler (g++; CXX names another)" if device.type == "cpu" else "a C compiler and Triton"
        reason = in_one_line(error.__cause__ or error)
        raise UserError(f"--model.compile=true: compiling failed: {reason} (install {needed})") from error
