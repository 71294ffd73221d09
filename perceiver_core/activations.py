"""What is kept for the backward pass: activations recomputed, or kept in CPU memory. Gradients stay the same."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint


@dataclass(frozen=True)
class ActivationPolicy:
    """Runs a layer such that less is kept on the device for its backward pass.

    Args:
        checkpointing: keep the layer's inputs only and recompute the rest in the backward pass.
        offloading: keep whatever is kept in CPU memory. With ``checkpointing`` these are the layers' inputs.
    """

    checkpointing: bool = False
    offloading: bool = False

    def __call__(self, layer: Callable[..., Any], *args: Any) -> Any:
        """``layer(*args)``."""
        if not torch.is_grad_enabled():
            return layer(*args)
        offload = save_on_cpu(pin_memory=torch.cuda.is_available()) if self.offloading else contextlib.nullcontext()
        with offload:
            if self.checkpointing:
                return checkpoint(layer, *args, use_reentrant=False)
            return layer(*args)
