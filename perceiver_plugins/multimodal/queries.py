"""Output queries of clips: audio patches, video pixels and the label."""

from __future__ import annotations

import math
from itertools import accumulate

import torch
from torch import Tensor, nn

from perceiver_core import AdaptedInput, QueryProvider, fourier_features
from perceiver_plugins.multimodal.adapters import AUDIO, LABEL, VIDEO
from perceiver_plugins.multimodal.config import AudioVideoLabelDecoderConfig


class ClipQueryProvider(QueryProvider):
    """Queries of audio patches, pixels and the label, in this order.

    A query consists of the Fourier features of its position, or of a learned vector for the label, and of a learned
    modality embedding. Index i of n along a dimension has the coordinate -1 + 2 i / n. Hugging Face's model uses
    these coordinates only when it decodes a subset of the positions.

    Args:
        config: the decoder's configuration.
    """

    def __init__(self, config: AudioVideoLabelDecoderConfig):
        assert config.audio_max_resolution is not None
        assert config.video_max_resolution is not None
        grids: dict[str, tuple[int, ...]] = {AUDIO: (config.num_audio_patches,), VIDEO: config.video_shape, LABEL: (1,)}
        bands = {AUDIO: config.num_audio_frequency_bands, VIDEO: config.num_video_frequency_bands}
        resolutions = {AUDIO: (config.audio_max_resolution,), VIDEO: config.video_max_resolution}
        channels = {modality: len(grids[modality]) * (2 * number + 1) for modality, number in bands.items()}
        channels[LABEL] = config.num_label_query_channels
        super().__init__(max(channels.values()) + config.min_padding)
        self.grids = grids
        self.bands = bands
        self.resolutions = resolutions
        self.label_query = nn.Parameter(torch.empty(1, channels[LABEL]).normal_(0.0, config.init_scale))
        self.embeddings = nn.ParameterDict(
            {
                modality: torch.empty(1, self.num_query_channels - num_channels).normal_(0.0, config.init_scale)
                for modality, num_channels in channels.items()
            }
        )

    @property
    def num_positions(self) -> dict[str, int]:
        """Number of output positions of each modality."""
        return {modality: math.prod(grid) for modality, grid in self.grids.items()}

    @property
    def slices(self) -> dict[str, slice]:
        """Slice of each modality in the sequence of all output positions."""
        return consecutive_slices(self.num_positions)

    def queries(self, modality: str, positions: Tensor) -> Tensor:
        """Return the queries of some positions of a modality.

        Args:
            modality: "audio", "image" or "label".
            positions: (...), indices of audio patches, or of pixels by frame, row and column, or 0 for the label.

        Returns:
            (..., f)
        """
        embedding = self.embeddings[modality].expand(*positions.shape, -1)
        if modality == LABEL:
            features = self.label_query.expand(*positions.shape, -1)
        else:
            grid = self.grids[modality]
            lengths = torch.tensor(grid, device=positions.device)
            coordinates = -1 + 2 * torch.stack(torch.unravel_index(positions, grid), dim=-1) / lengths
            features = fourier_features(coordinates, self.bands[modality], self.resolutions[modality])
        return torch.cat([features.to(embedding.dtype), embedding], dim=-1)

    def forward(self, adapted: AdaptedInput, positions: Tensor | None = None) -> Tensor:
        device = self.label_query.device
        if positions is None:
            indices = {modality: torch.arange(size, device=device) for modality, size in self.num_positions.items()}
            return torch.cat([self.queries(modality, index) for modality, index in indices.items()])[None]
        queries = self.label_query.new_empty(*positions.shape, self.num_query_channels)
        for modality, part in self.slices.items():
            selected = (positions >= part.start) & (positions < part.stop)
            queries[selected] = self.queries(modality, positions[selected] - part.start)
        return queries


def consecutive_slices(lengths: dict[str, int]) -> dict[str, slice]:
    """Return the slices of consecutive parts with the given lengths."""
    ends = accumulate(lengths.values())
    return {name: slice(end - length, end) for (name, length), end in zip(lengths.items(), ends, strict=True)}
