"""A modality of arrays, to test the core without any plugin."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from perceiver_core import (
    AdaptedInput,
    Batch,
    DecoderConfig,
    EncoderConfig,
    InputAdapter,
    OutputAdapter,
    PerceiverConfig,
    PerceiverIO,
    PositionLayout,
    TrainableQueryProvider,
)

NUM_INPUTS, NUM_INPUT_CHANNELS, NUM_OUTPUTS, NUM_QUERY_CHANNELS = 13, 10, 11, 14


class ArrayInput(InputAdapter):
    """Adds learned positions to ``batch["x"]`` (b, m, c)."""

    def __init__(self):
        super().__init__(NUM_INPUT_CHANNELS)
        self.positions = nn.Parameter(torch.randn(NUM_INPUTS, NUM_INPUT_CHANNELS))

    def position_layout(self) -> PositionLayout:
        return PositionLayout(self.positions, self.positions)

    def forward(self, batch: Batch) -> AdaptedInput:
        return AdaptedInput(batch["x"] + self.positions, batch.get("pad_mask"))


class ArrayOutput(OutputAdapter):
    """A linear layer."""

    def __init__(self):
        super().__init__(TrainableQueryProvider(NUM_OUTPUTS, NUM_QUERY_CHANNELS, init_scale=1.0))
        self.linear = nn.Linear(NUM_QUERY_CHANNELS, 3)

    def forward(self, decoded: Tensor) -> Tensor:
        return self.linear(decoded)


@pytest.fixture
def input_adapter() -> ArrayInput:
    return ArrayInput()


@pytest.fixture
def output_adapter() -> ArrayOutput:
    return ArrayOutput()


@pytest.fixture
def build(input_adapter, output_adapter) -> Callable[..., PerceiverIO]:
    """A function that builds a small model of odd sizes, with other values of its config where given."""

    def build(encoder=None, decoder=None, **values) -> PerceiverIO:
        encoder_values = {
            "num_cross_attention_heads": 2,
            "num_cross_attention_qk_channels": 6,
            "num_self_attention_heads": 3,
            "num_self_attention_layers_per_block": 2,
        }
        config = PerceiverConfig(
            EncoderConfig(**(encoder_values | (encoder or {}))),
            DecoderConfig(**({"num_cross_attention_heads": 2} | (decoder or {}))),
            **({"num_latents": 5, "num_latent_channels": 9} | values),
        )
        return PerceiverIO(config, input_adapter, output_adapter)

    return build


@pytest.fixture
def batch() -> dict[str, Tensor]:
    """Three examples; the last positions of two of them are padding."""
    pad_mask = torch.zeros(3, NUM_INPUTS, dtype=torch.bool)
    pad_mask[1, 6:] = True
    pad_mask[2, 1:] = True
    return {"x": torch.randn(3, NUM_INPUTS, NUM_INPUT_CHANNELS), "pad_mask": pad_mask}


class Largest(TorchDispatchMode):
    """Notes how many numbers the largest tensor has that an operation makes."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        outputs = func(*args, **(kwargs or {}))
        for output in outputs if isinstance(outputs, tuple | list) else (outputs,):
            if isinstance(output, torch.Tensor):
                self.size = max(self.size, output.numel())
        return outputs


@pytest.fixture
def largest() -> Largest:
    """A context that notes the size of the largest tensor."""
    return Largest()
