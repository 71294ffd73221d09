"""Collection of the latents between an encoder's layers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from perceiver_core import Model, PerceiverAR, PerceiverEncoder


@contextlib.contextmanager
def collect_latents(model: Model) -> Iterator[list[Tensor]]:
    """Collect the latents (b, n, d) of ``model.encode``, the ``last_hidden_state``, in this context."""
    last: Any = model.output_norm if isinstance(model, PerceiverAR) else model.encoder
    latents: list[Tensor] = []
    # If attention weights are returned, the output is a tuple that starts with the latents.
    hook = lambda _, inputs, output: latents.append(output[0] if isinstance(output, tuple) else output)  # noqa: E731
    handle = last.register_forward_hook(hook)
    try:
        yield latents
    finally:
        handle.remove()


@contextlib.contextmanager
def collect_hidden_states(encoder: PerceiverEncoder) -> Iterator[list[Tensor]]:
    """Collect the ``hidden_states`` of an encoder, as Hugging Face's Perceiver returns them, in this context.

    These are, for each self-attention block, the latents (b, n, d) before its first layer and after each layer.
    """
    states: list[Tensor] = []
    blocks: Any = encoder.self_attention_blocks
    handles = [block[0].register_forward_pre_hook(lambda _, inputs: states.append(inputs[0])) for block in blocks]
    handles += [
        layer.register_forward_hook(lambda _, inputs, output: states.append(output[0]))
        for block in blocks
        for layer in block
    ]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()
