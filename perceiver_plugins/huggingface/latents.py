"""Output adapter of models without a decoder, whose outputs are their latents."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from perceiver_core import AdaptedInput, InputAdapter, LatentsDecoderConfig, OutputAdapter, QueryProvider
from perceiver_plugins.sdk.tasks.lightning import LitPerceiver


class LatentIndices(QueryProvider):
    """Indices of the latents as output queries.

    Args:
        num_latents: latents n.
    """

    def __init__(self, num_latents: int):
        super().__init__(num_query_channels=1)
        self.num_latents = num_latents

    def forward(self, adapted: AdaptedInput, positions: Tensor | None = None) -> Tensor:
        if positions is None:
            positions = torch.arange(self.num_latents, device=adapted.x.device)[None]
        return positions[..., None]


class LatentsOutputAdapter(OutputAdapter):
    """Latents as output (b, n, d), without weights.

    Args:
        num_latents: latents n.
    """

    output_name: ClassVar[str] = "latents"

    def __init__(self, num_latents: int):
        super().__init__(LatentIndices(num_latents))

    @classmethod
    def from_config(cls, config: LatentsDecoderConfig, input_adapter: InputAdapter) -> LatentsOutputAdapter:
        return cls(config.num_latents)

    def forward(self, decoded: Tensor) -> Tensor:
        return decoded


class LitEmbedder(LitPerceiver):
    """Model whose latents are embeddings. It is not trained: other tasks train its encoder (``encoder.params``)."""

    task = "embedding"
