"""Output queries of clips: patches of audio, pixels of the video and the label."""

from __future__ import annotations

import math
from itertools import accumulate

import torch
from torch import Tensor, nn

from perceiver_core import AdaptedInput, QueryProvider, fourier_features
from perceiver_plugins.multimodal.adapters import AUDIO, LABEL, VIDEO
from perceiver_plugins.multimodal.config import AudioVideoLabelDecoderConfig


class ClipQueryProvider(QueryProvider):
    """Queries of the patches of audio, the pixels and the label, in this order.

    The query of a place is the Fourier features of its position, or for the label a learned vector, filled up with a
    learned embedding of its modality. Index i of n in a dimension lies at -1 + 2 i / n, as in Hugging Face's model
    where it decodes some of the places; so it does here where it decodes all.

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
                modality: torch.empty(1, self.num_query_channels - own).normal_(0.0, config.init_scale)
                for modality, own in channels.items()
            }
        )

    @property
    def num_places(self) -> dict[str, int]:
        """How many output places each modality has."""
        return {modality: math.prod(grid) for modality, grid in self.grids.items()}

    @property
    def places(self) -> dict[str, slice]:
        """Which of all output places are those of each modality."""
        return slices(self.num_places)

    def queries(self, modality: str, places: Tensor) -> Tensor:
        """The queries of some places of a modality.

        Args:
            modality: "audio", "image" or "label".
            places: (...), numbers of its patches or of its pixels, frame by frame and row by row, or 0 for the label.

        Returns:
            (..., f)
        """
        embedding = self.embeddings[modality].expand(*places.shape, -1)
        if modality == LABEL:
            features = self.label_query.expand(*places.shape, -1)
        else:
            grid = self.grids[modality]
            lengths = torch.tensor(grid, device=places.device)
            positions = -1 + 2 * torch.stack(torch.unravel_index(places, grid), dim=-1) / lengths
            features = fourier_features(positions, self.bands[modality], self.resolutions[modality])
        return torch.cat([features.to(embedding.dtype), embedding], dim=-1)

    def forward(self, adapted: AdaptedInput, positions: Tensor | None = None) -> Tensor:
        device = self.label_query.device
        if positions is None:
            every = {modality: torch.arange(number, device=device) for modality, number in self.num_places.items()}
            return torch.cat([self.queries(modality, places) for modality, places in every.items()])[None]
        queries = self.label_query.new_empty(*positions.shape, self.num_query_channels)
        for modality, own in self.places.items():
            chosen = (positions >= own.start) & (positions < own.stop)
            queries[chosen] = self.queries(modality, positions[chosen] - own.start)
        return queries


def slices(lengths: dict[str, int]) -> dict[str, slice]:
    """Where things of these lengths lie that stand one after the other."""
    ends = accumulate(lengths.values())
    return {name: slice(end - length, end) for (name, length), end in zip(lengths.items(), ends, strict=True)}
