"""Output adapter for clips: audio patches, video pixels and the label."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from perceiver_core import Batch, InputAdapter, Linear, OutputAdapter
from perceiver_plugins.multimodal.adapters import AUDIO, LABEL, VIDEO
from perceiver_plugins.multimodal.config import NUM_COLOURS, AudioVideoLabelDecoderConfig
from perceiver_plugins.multimodal.decoding import reconstruct
from perceiver_plugins.multimodal.queries import ClipQueryProvider, consecutive_slices


class AudioVideoLabelOutputAdapter(OutputAdapter):
    """Output adapter for audio patches, pixels of the video and the label, in this order of positions.

    ``forward`` returns the channels of all three modalities for every position, of which only those of the position's
    modality are meaningful: see :attr:`slices` and :attr:`channels`.
    :func:`~perceiver_plugins.multimodal.decoding.decode` computes each modality's channels for any of its positions.

    Args:
        config: the decoder's configuration.
    """

    query_provider: ClipQueryProvider

    def __init__(self, config: AudioVideoLabelDecoderConfig):
        super().__init__(ClipQueryProvider(config))
        self.num_channels = {AUDIO: config.samples_per_patch, VIDEO: NUM_COLOURS, LABEL: config.num_classes}
        self.linear = Linear(self.query_provider.num_query_channels, config.num_output_channels)
        self.heads = nn.ModuleDict(
            {modality: Linear(config.num_output_channels, number) for modality, number in self.num_channels.items()}
        )
        for layer in (self.linear, *self.heads.values()):
            nn.init.normal_(layer.weight, 0.0, config.init_scale)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    @classmethod
    def from_config(
        cls, config: AudioVideoLabelDecoderConfig, input_adapter: InputAdapter
    ) -> AudioVideoLabelOutputAdapter:
        return cls(config)

    @property
    def slices(self) -> dict[str, slice]:
        """Slice of each modality in the sequence of all output positions."""
        return self.query_provider.slices

    @property
    def places(self) -> dict[str, slice]:
        """Deprecated name of :attr:`slices`."""
        warnings.warn(f"{type(self).__name__}.places is deprecated: use slices", DeprecationWarning, stacklevel=2)
        return self.slices

    @property
    def channels(self) -> dict[str, slice]:
        """Slice of each modality in the channels of the output."""
        return consecutive_slices(self.num_channels)

    def output(self, modality: str, decoded: Tensor) -> Tensor:
        """Compute a modality's output.

        Args:
            modality: "audio", "image" or "label".
            decoded: the decoder's output (..., f) at positions of the modality.

        Returns:
            (..., samples per patch), (..., 3) or logits (..., classes).
        """
        return self.heads[modality](self.linear(decoded))

    def forward(self, decoded: Tensor) -> Tensor:
        """Return (..., samples per patch + 3 + classes) for the decoder's output (..., f)."""
        hidden = self.linear(decoded)
        return torch.cat([head(hidden) for head in self.heads.values()], dim=-1)

    def serve(self, model: Any, batch: Batch) -> Mapping[str, Tensor]:
        """Compute ``audio`` (b, samples), ``video`` (b, frames, 3, h, w) and ``logits`` (b, classes)."""
        clips = reconstruct(model, batch)
        return {"audio": clips.input_values, "video": clips.pixel_values_videos, "logits": clips.logits}
