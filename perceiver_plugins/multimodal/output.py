"""The adapter from a Perceiver to clips: what each pixel, each patch of audio and the label are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from perceiver_core import Batch, InputAdapter, Linear, OutputAdapter
from perceiver_plugins.multimodal.adapters import AUDIO, LABEL, VIDEO
from perceiver_plugins.multimodal.config import NUM_COLOURS, AudioVideoLabelDecoderConfig
from perceiver_plugins.multimodal.decoding import reconstruct
from perceiver_plugins.multimodal.queries import ClipQueryProvider, slices


class AudioVideoLabelOutputAdapter(OutputAdapter):
    """What the output places of a clip are: patches of audio, then pixels of the video, then the label.

    Its output has the channels of all three modalities next to each other, of which those of a place's own modality
    count: ``places`` and ``channels`` say which are which. :func:`~perceiver_plugins.multimodal.decoding.decode` gives
    those of each modality alone, for any places, without computing the others.

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
    def places(self) -> dict[str, slice]:
        """Which of all output places are those of each modality."""
        return self.query_provider.places

    @property
    def channels(self) -> dict[str, slice]:
        """Which channels of the output are those of each modality."""
        return slices(self.num_channels)

    def output(self, modality: str, decoded: Tensor) -> Tensor:
        """What a modality's places are: (..., samples per patch), (..., 3) or logits (..., classes).

        Args:
            modality: "audio", "image" or "label".
            decoded: the decoder's output (..., f) at its places.
        """
        return self.heads[modality](self.linear(decoded))

    def forward(self, decoded: Tensor) -> Tensor:
        """Returns (..., samples per patch + 3 + classes) for the decoder's output (..., f)."""
        answers = self.linear(decoded)
        return torch.cat([head(answers) for head in self.heads.values()], dim=-1)

    def serve(self, model: Any, batch: Batch) -> Mapping[str, Tensor]:
        """Compute ``audio`` (b, samples), ``video`` (b, frames, 3, h, w) and ``logits`` (b, classes)."""
        clips = reconstruct(model, batch)
        return {"audio": clips.input_values, "video": clips.pixel_values_videos, "logits": clips.logits}
