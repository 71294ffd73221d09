"""Activation checkpointing and offloading. Gradients stay the same."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint

from perceiver_core.unmodified import are_plain_tensors


@dataclass(frozen=True)
class ActivationPolicy:
    """Policy for the activations that a layer keeps for its backward pass.

    Args:
        checkpointing: keep only the layer's inputs, and recompute the rest in the backward pass.
        offloading: move kept activations to CPU memory; with ``checkpointing`` these are the layer's inputs. Weights
            stay on the device.
    """

    checkpointing: bool = False
    offloading: bool = False

    def __call__(self, layer: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Compute ``layer(*args, **kwargs)``."""
        if not torch.is_grad_enabled():
            return layer(*args, **kwargs)
        with _Offloading(layer) if self.offloading else contextlib.nullcontext():
            if self.checkpointing:
                return checkpoint(layer, *args, use_reentrant=False, **kwargs)
            return layer(*args, **kwargs)


class _Offloading(save_on_cpu):
    """Moves the activations that a layer keeps to the CPU, but not its weights."""

    def __init__(self, layer: Callable[..., Any]):
        super().__init__(pin_memory=torch.cuda.is_available())
        # A kept tensor may be a view of a weight, such as its transpose.
        parameters = layer.parameters() if isinstance(layer, nn.Module) else ()
        weights = {_storage(parameter) for parameter in parameters} - {None}
        move, fetch = self.pack_hook, self.unpack_hook

        def pack(tensor: Tensor) -> Any:
            return tensor if _storage(tensor) in weights else move(tensor)

        def unpack(kept: Any) -> Tensor:
            return kept if isinstance(kept, Tensor) else fetch(kept)

        self.pack_hook, self.unpack_hook = pack, unpack


def _storage(tensor: Tensor) -> int | None:
    """Return the address of a tensor's storage; None for a subclass, which may have none of its own."""
    return tensor.untyped_storage().data_ptr() if are_plain_tensors(tensor) else None
