"""Minimal adapters that complete a model with the adapter under test."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from perceiver_core import (
    AdaptedInput,
    Batch,
    DecoderConfig,
    EncoderConfig,
    InputAdapter,
    OutputAdapter,
    PositionLayout,
    TrainableQueryProvider,
)
from perceiver_registry.specs import AdapterSpec


@dataclass
class VectorsEncoderConfig(EncoderConfig):
    """Encoder of sequences of vectors.

    Args:
        num_vectors: maximum sequence length.
        num_vector_channels: channels of a vector.
    """

    num_vectors: int = 6
    num_vector_channels: int = 16


class VectorsInputAdapter(InputAdapter):
    """Vectors with learned position embeddings added. Reads ``inputs`` and ``attention_mask`` of a batch."""

    is_causal = True

    def __init__(self, num_vectors: int, num_vector_channels: int):
        super().__init__(num_vector_channels)
        self.positions = nn.Parameter(torch.randn(num_vectors, num_vector_channels))

    @classmethod
    def from_config(cls, config: VectorsEncoderConfig) -> VectorsInputAdapter:
        return cls(config.num_vectors, config.num_vector_channels)

    def position_layout(self) -> PositionLayout:
        return PositionLayout(self.positions, self.positions)

    def example_batch(self, batch_size: int, generator: torch.Generator) -> Batch:
        max_length, channels = self.positions.shape
        lengths = torch.randint(1, max_length + 1, (batch_size, 1), generator=generator)
        return {
            "inputs": torch.randn(batch_size, max_length, channels, generator=generator),
            "attention_mask": (torch.arange(max_length) < lengths).long(),
        }

    def forward(self, batch: Batch) -> AdaptedInput:
        inputs: Tensor = batch["inputs"]
        return AdaptedInput(inputs + self.positions[: inputs.shape[1]], ~batch["attention_mask"].bool())


@dataclass
class NumbersDecoderConfig(DecoderConfig):
    """Decoder to three numbers at each of five positions."""


class NumbersOutputAdapter(OutputAdapter):
    """Three numbers for each of five learned queries."""

    def __init__(self) -> None:
        super().__init__(TrainableQueryProvider(num_queries=5, num_query_channels=16, init_scale=1.0))
        self.linear = nn.Linear(16, 3)

    @classmethod
    def from_config(cls, config: NumbersDecoderConfig, input_adapter: InputAdapter) -> NumbersOutputAdapter:
        return cls()

    def forward(self, decoded: Tensor) -> Tensor:
        return self.linear(decoded)


VECTORS = AdapterSpec(
    name="vectors",
    kind="input",
    adapter=f"{__name__}:VectorsInputAdapter",
    config=f"{__name__}:VectorsEncoderConfig",
    summary="sequences of vectors",
    reads=("inputs", "attention_mask"),
)
NUMBERS = AdapterSpec(
    name="numbers",
    kind="output",
    adapter=f"{__name__}:NumbersOutputAdapter",
    config=f"{__name__}:NumbersDecoderConfig",
    summary="a few numbers",
    tasks=("none",),
)
