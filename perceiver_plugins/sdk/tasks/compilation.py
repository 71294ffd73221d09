"""``torch.compile`` for training: each attention layer is compiled by itself, in its place."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from perceiver_core import CrossAttentionLayer, SelfAttentionLayer
from perceiver_registry import UserError
from perceiver_registry.errors import in_one_line


def compile_layers(model: nn.Module, device: torch.device | str = "cpu", **options: Any) -> None:
    """Compiles the attention layers of a model; layers that are alike share what was compiled.

    The layers are compiled in place, when they first run: names of weights, and so checkpoints, stay what they are.
    Results are the same up to rounding; dropout draws other random numbers than without.

    Args:
        model: a model with Perceiver layers.
        device: where it will run.
        options: those of ``torch.compile``.

    Raises:
        UserError: if nothing can be compiled for the device, usually for want of a C++ compiler.
    """
    _check_compiler(torch.device(device), options)
    for module in model.modules():
        if isinstance(module, CrossAttentionLayer | SelfAttentionLayer):
            module.compile(**options)


def _check_compiler(device: torch.device, options: dict[str, Any]) -> None:
    # Compiling something small is the only check that knows all that is needed; its parts are needed anyway.
    try:
        torch.compile(torch.sigmoid, **options)(torch.ones(8, device=device))
    except Exception as error:  # from a compiler that is missing to one that fails, of many types
        needed = "a C++ compiler (g++; CXX names another)" if device.type == "cpu" else "a C compiler and Triton"
        reason = in_one_line(error.__cause__ or error)
        raise UserError(f"--model.compile=true needs {needed}, and compiling failed: {reason}") from error
