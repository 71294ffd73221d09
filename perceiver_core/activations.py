"""What is kept for the backward pass: activations recomputed, or kept in CPU memory. Gradients stay the same."""

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
    """Runs a layer such that less is kept on the device for its backward pass.

    Args:
        checkpointing: keep the layer's inputs only and recompute the rest in the backward pass.
        offloading: keep whatever is kept in CPU memory, but for the weights, which are on the device in any case.
            With ``checkpointing`` these are the layers' inputs.
    """

    checkpointing: bool = False
    offloading: bool = False

    def __call__(self, layer: Callable[..., Any], *args: Any) -> Any:
        """``layer(*args)``."""
        if not torch.is_grad_enabled():
            return layer(*args)
        with _Offloading(layer) if self.offloading else contextlib.nullcontext():
            if self.checkpointing:
                return checkpoint(layer, *args, use_reentrant=False)
            return layer(*args)


class _Offloading(save_on_cpu):
    """Moves what a layer keeps for its backward pass to the CPU, but for its weights."""

    def __init__(self, layer: Callable[..., Any]):
        super().__init__(pin_memory=torch.cuda.is_available())
        # What is kept of a weight may be a view of it, such as its transpose.
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
