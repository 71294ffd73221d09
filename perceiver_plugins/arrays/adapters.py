"""Input adapters of sequences and sets of vectors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from perceiver_core import AdaptedInput, Batch, FourierPositions, InputAdapter, PositionLayout, fourier_features
from perceiver_plugins.arrays.config import FeaturesEncoderConfig, PointsEncoderConfig

EXAMPLE_LENGTH = 12
"""Vectors in an example batch, unless the adapter accepts fewer. Arbitrary."""


class FeaturesInputAdapter(InputAdapter):
    """Sequences of feature vectors, with the encoding of their index appended.

    Reads ``features`` of a batch and, if lengths differ, ``attention_mask``.

    Args:
        config: the encoder's configuration.
    """

    def __init__(self, config: FeaturesEncoderConfig):
        encoding = config.positions
        fourier = FourierPositions(config.num_frequency_bands, (config.max_positions,))
        channels = {"fourier": fourier.num_channels, "learned": config.num_position_channels, "none": 0}
        super().__init__(config.num_features + channels[encoding])
        self.num_features = config.num_features
        self.max_positions = config.max_positions
        self.fourier = fourier if encoding == "fourier" else None
        table = torch.empty(config.max_positions, config.num_position_channels)
        self.table = nn.Parameter(table.normal_(0.0, config.init_scale)) if encoding == "learned" else None

    @classmethod
    def from_config(cls, config: FeaturesEncoderConfig) -> FeaturesInputAdapter:
        return cls(config)

    def position_layout(self) -> PositionLayout | None:
        positions = self._positions(self.max_positions, None)
        return None if positions is None else PositionLayout(positions, self.table)

    def check_data(self, data: Any) -> None:
        """Check that a data module has feature vectors of length ``num_features``.

        Raises:
            ValueError: if their length differs, or if it has point clouds.
        """
        _check_number(data, "num_coordinates", 0)
        _check_number(data, "num_features", self.num_features)

    def example_batch(self, batch_size: int, generator: torch.Generator) -> Batch:
        length = min(EXAMPLE_LENGTH, self.max_positions) if self.table is not None else EXAMPLE_LENGTH
        features = torch.randn(batch_size, length, self.num_features, generator=generator)
        return {"features": features, "attention_mask": _example_mask(batch_size, length, generator)}

    def forward(self, batch: Batch) -> AdaptedInput:
        """Append position encodings to feature vectors.

        Args:
            batch: ``features`` (b, m, features), floating point, and optionally ``attention_mask`` (b, m), 0 at
                padding.

        Raises:
            ValueError: if the shape is wrong, or if there are more than ``max_positions`` vectors with learned
                positions.
        """
        features = _require_vectors(batch["features"], "features", self.num_features)
        positions = self._positions(features.shape[1], features.device)
        if positions is not None:
            positions = positions.to(features.dtype).expand(features.shape[0], -1, -1)
            features = torch.cat([features, positions], dim=-1)
        return AdaptedInput(features, _padding(batch))

    def _positions(self, length: int, device: torch.device | None) -> Tensor | None:
        """Return the encodings (length, channels) of the first ``length`` positions; None without encodings."""
        if self.table is not None:
            if isinstance(length, int) and length > self.max_positions:
                raise ValueError(f"{length} feature vectors: must be at most max_positions={self.max_positions}")
            return self.table[:length]
        if self.fourier is None:
            return None
        steps = torch.arange(length, device=device, dtype=torch.float32)
        positions = 2 * steps / max(self.max_positions - 1, 1) - 1
        return fourier_features(positions[:, None], self.fourier.num_bands, self.fourier.max_resolution)


class PointsInputAdapter(InputAdapter):
    """Point clouds: Fourier features of the coordinates, with the features of each point appended.

    Reads ``coordinates`` of a batch, ``features`` if points have some and, if numbers of points differ,
    ``attention_mask``. The order of the points has no effect.

    Args:
        config: the encoder's configuration.
    """

    def __init__(self, config: PointsEncoderConfig):
        fourier = FourierPositions(config.num_frequency_bands, (config.max_resolution,) * config.num_coordinates)
        super().__init__(fourier.num_channels + config.num_features)
        self.num_coordinates = config.num_coordinates
        self.num_features = config.num_features
        self.fourier = fourier

    @classmethod
    def from_config(cls, config: PointsEncoderConfig) -> PointsInputAdapter:
        return cls(config)

    def check_data(self, data: Any) -> None:
        """Check that a data module has points with these coordinates and features.

        Raises:
            ValueError: if their numbers differ.
        """
        _check_number(data, "num_coordinates", self.num_coordinates)
        _check_number(data, "num_features", self.num_features)

    def example_batch(self, batch_size: int, generator: torch.Generator) -> Batch:
        shape = (batch_size, EXAMPLE_LENGTH, self.num_coordinates)
        batch = {"coordinates": 2 * torch.rand(shape, generator=generator) - 1}
        if self.num_features:
            batch["features"] = torch.randn(*shape[:2], self.num_features, generator=generator)
        return batch | {"attention_mask": _example_mask(batch_size, EXAMPLE_LENGTH, generator)}

    def forward(self, batch: Batch) -> AdaptedInput:
        """Encode points.

        Args:
            batch: ``coordinates`` (b, m, coordinates), floating point, about from -1 to 1; ``features``
                (b, m, features) if points have some; optionally ``attention_mask`` (b, m), 0 at padding.

        Raises:
            KeyError: if ``features`` is missing.
            ValueError: if a shape is wrong.
        """
        coordinates = _require_vectors(batch["coordinates"], "coordinates", self.num_coordinates)
        x = fourier_features(coordinates.float(), self.fourier.num_bands, self.fourier.max_resolution)
        x = x.to(coordinates.dtype)
        if self.num_features:
            features = batch.get("features")  # optional: points without features lack it
            if features is None:
                raise KeyError("features")
            x = torch.cat([x, _require_vectors(features, "features", self.num_features)], dim=-1)
        return AdaptedInput(x, _padding(batch))


def _check_number(data: Any, attribute: str, expected: int) -> None:
    number = getattr(data, attribute, None)
    if number is not None and number != expected:
        raise ValueError(f"the data's {attribute}={number} does not fit the model's {attribute}={expected}")


def _require_vectors(vectors: Tensor, name: str, num_channels: int) -> Tensor:
    if vectors.dim() != 3 or vectors.shape[2] != num_channels:
        raise ValueError(
            f"{name} of shape {tuple(vectors.shape)}: must be (examples, vectors, numbers) with {num_channels} numbers "
            "in a vector"
        )
    if not vectors.is_floating_point():
        raise ValueError(f"{name} of type {vectors.dtype}: must be floating point numbers")
    return vectors


def _padding(batch: Batch) -> Tensor | None:
    mask = batch.get("attention_mask")
    return None if mask is None else mask == 0


def _example_mask(batch_size: int, length: int, generator: torch.Generator) -> Tensor:
    lengths = torch.randint(1, length + 1, (batch_size, 1), generator=generator)
    return (torch.arange(length) < lengths).long()
