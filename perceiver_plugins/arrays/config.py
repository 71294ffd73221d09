"""Configurations of the input adapters of arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from perceiver_core.config import EncoderConfig, require, require_choice, require_positive

Positions = Literal["fourier", "learned", "none"]


@dataclass
class FeaturesEncoderConfig(EncoderConfig):
    """Encoder of precomputed feature vectors, such as those of another model.

    Args:
        num_features: length of a feature vector.
        positions: encoding of a vector's index in its sequence, appended to the vector: Fourier features, learned
            vectors, or none, for sets.
        num_frequency_bands: frequencies of Fourier positions.
        num_position_channels: channels of learned positions.
        max_positions: number of vectors that Fourier positions resolve; longer inputs are accepted. With learned
            positions, the largest number of vectors.
    """

    num_features: int = 16
    positions: Positions = "fourier"
    num_frequency_bands: int = 16
    num_position_channels: int = 32
    max_positions: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "num_features", "num_frequency_bands", "num_position_channels", "max_positions")
        require_choice(self, "positions", Positions)
        require(
            self.num_features > 1 or self.positions != "none",
            self,
            "num_features",
            "must be at least 2 without positions, as the layer norm of a single number is 0",
        )


@dataclass
class PointsEncoderConfig(EncoderConfig):
    """Encoder of point clouds: coordinates with Fourier features, and features of each point.

    Args:
        num_coordinates: dimensions of the space.
        num_features: features of a point, such as colours, after its coordinates.
        num_frequency_bands: frequencies of the Fourier features of each coordinate. The defaults are arbitrary.
        max_resolution: resolution of the Fourier features along the 2 units from -1 to 1; half of it is the highest
            frequency.
    """

    num_coordinates: int = 3
    num_features: int = 0
    num_frequency_bands: int = 12
    max_resolution: int = 24

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "num_coordinates", "num_frequency_bands", "max_resolution")
        require(self.num_features >= 0, self, "num_features", "must not be negative")
