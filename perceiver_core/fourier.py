"""Fourier features: sines and cosines of positions in any number of dimensions, at evenly spaced frequencies.

Perceiver (arXiv 2103.03206), section 3.2 and appendix D; the order of the channels is Hugging Face's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


def grid_positions(shape: Sequence[int], device: torch.device | None = None) -> Tensor:
    """Return the positions of a grid in row-major order.

    Each dimension runs from -1 to 1, both included. In a dimension of length 1 the position is -1.

    Args:
        shape: lengths of the grid's dimensions.
        device: device of the result. Default: torch's default device.

    Returns:
        (m, dimensions), where m is the product of ``shape``.
    """
    axes = [_axis(length, device) for length in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)


def _axis(length: int | torch.SymInt, device: torch.device | None) -> Tensor:
    """Return ``length`` positions from -1 to 1, both included; a single one is -1."""
    if isinstance(length, int):
        return torch.linspace(-1.0, 1.0, length, device=device)
    # A dynamic dimension of an export, which linspace would fix. The same formula, from both ends.
    positions = torch.arange(length, device=device, dtype=torch.float32)
    last = positions[-1].clamp(min=1.0)
    step = 2.0 / last
    return torch.where(positions < last / 2, positions * step - 1.0, 1.0 - (last - positions) * step)


def fourier_features(positions: Tensor, num_bands: int, max_resolution: Sequence[int]) -> Tensor:
    """Compute Fourier features of positions.

    Args:
        positions: (..., dimensions), from -1 to 1.
        num_bands: number of frequencies in each dimension, evenly spaced from 1 to half of ``max_resolution`` cycles
            per 2 units of length: the Nyquist frequency of so many positions.
        max_resolution: resolution in each dimension.

    Returns:
        (..., dimensions (2 num_bands + 1)): the positions, then the sines of the first dimension, of the second one and
        so on, then the cosines in the same order.
    """
    frequencies = torch.stack(
        [torch.linspace(1.0, resolution / 2, num_bands, device=positions.device) for resolution in max_resolution]
    )
    phases = math.pi * (positions[..., None] * frequencies).flatten(-2)
    return torch.cat([positions, phases.sin(), phases.cos()], dim=-1)


@dataclass(frozen=True)
class FourierPositions:
    """Fourier features of the positions of a grid of any size: neither parameters nor part of a state dict.

    Args:
        num_bands: number of frequencies in each dimension.
        max_resolution: resolution in each dimension, of which half is the highest frequency. It does not depend on the
            size of the grid.
    """

    num_bands: int
    max_resolution: tuple[int, ...]

    @property
    def num_channels(self) -> int:
        """Channels of a position: dimensions (2 num_bands + 1)."""
        return len(self.max_resolution) * (2 * self.num_bands + 1)

    def __call__(
        self, shape: Sequence[int], device: torch.device | None = None, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Compute the features of all positions of a grid in row-major order, in single precision.

        Args:
            shape: lengths of the grid's dimensions.
            device: device of the result. Default: torch's default device.
            dtype: data type of the result.

        Returns:
            (m, ``num_channels``), where m is the product of ``shape``.

        Raises:
            ValueError: if ``shape`` has another number of dimensions than ``max_resolution``.
        """
        if len(shape) != len(self.max_resolution):
            raise ValueError(
                f"a grid of shape {tuple(shape)} must have the {len(self.max_resolution)} dimensions of "
                f"max_resolution={self.max_resolution}"
            )
        parts = []
        # Features of one dimension are the same along the others: they are computed once.
        for dimension, (length, resolution) in enumerate(zip(shape, self.max_resolution, strict=True)):
            features = fourier_features(_axis(length, device)[:, None], self.num_bands, (resolution,)).to(dtype)
            along = [length if each == dimension else 1 for each in range(len(shape))]
            parts.append(features.view(*along, -1).expand(*shape, -1).split([1, *2 * [self.num_bands]], dim=-1))
        positions, sines, cosines = zip(*parts, strict=True)
        return torch.cat([*positions, *sines, *cosines], dim=-1).flatten(0, -2)
