"""Fourier features of positions: sines and cosines of evenly spaced frequencies, in any number of dimensions.

Perceiver (arXiv 2103.03206), section 3.2 and appendix D; the order of the channels is Hugging Face's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


def grid_positions(shape: Sequence[int], device: torch.device | None = None) -> Tensor:
    """The places of a grid, row by row: each dimension runs from -1 to 1, both included; a single place is at -1.

    Args:
        shape: the grid's length in each of d dimensions.
        device: where to put the result.

    Returns:
        (m, d), m the product of ``shape``; the last dimension of the grid runs fastest.
    """
    axes = [_axis(length, device) for length in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)


def _axis(length: int | torch.SymInt, device: torch.device | None) -> Tensor:
    """``length`` places from -1 to 1, both included; a single one is at -1."""
    if isinstance(length, int):
        return torch.linspace(-1.0, 1.0, length, device=device)
    # A length that an export leaves open: linspace would fix it. The same formula, from both ends.
    places = torch.arange(length, device=device, dtype=torch.float32)
    last = places[-1].clamp(min=1.0)
    step = 2.0 / last
    return torch.where(places < last / 2, places * step - 1.0, 1.0 - (last - places) * step)


def fourier_features(positions: Tensor, num_bands: int, max_resolution: Sequence[int]) -> Tensor:
    """Fourier features of any positions.

    Args:
        positions: (..., d), in each dimension from -1 to 1.
        num_bands: number of frequencies in each dimension, evenly spaced from 1 to half of ``max_resolution`` cycles
            per 2 units of length, the Nyquist frequency of so many places.
        max_resolution: the resolution in each of the d dimensions.

    Returns:
        (..., d (2 num_bands + 1)): the positions, then the sines of the first dimension, of the second one and so on,
        then the cosines in the same order.
    """
    frequencies = torch.stack(
        [torch.linspace(1.0, resolution / 2, num_bands, device=positions.device) for resolution in max_resolution]
    )
    phases = math.pi * (positions[..., None] * frequencies).flatten(-2)
    return torch.cat([positions, phases.sin(), phases.cos()], dim=-1)


@dataclass(frozen=True)
class FourierPositions:
    """Fourier features of the places of a grid of any size. They are no parameters, and no part of a state dict.

    Args:
        num_bands: number of frequencies in each dimension.
        max_resolution: resolution in each dimension, half of which is the highest frequency. It is independent of the
            size of the grid.
    """

    num_bands: int
    max_resolution: tuple[int, ...]

    @property
    def num_channels(self) -> int:
        """Channels of a position: d (2 num_bands + 1) in d dimensions."""
        return len(self.max_resolution) * (2 * self.num_bands + 1)

    def __call__(
        self, shape: Sequence[int], device: torch.device | None = None, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """The features of all places of a grid, row by row. They are computed in single precision.

        Args:
            shape: the grid's length in each dimension.
            device: where to put the result. None: torch's default device.
            dtype: what to convert it to.

        Returns:
            (m, ``num_channels``), m the product of ``shape``.

        Raises:
            ValueError: if ``shape`` has another number of dimensions than ``max_resolution``.
        """
        if len(shape) != len(self.max_resolution):
            raise ValueError(
                f"a grid of shape {tuple(shape)} has not the {len(self.max_resolution)} dimensions of "
                f"max_resolution={self.max_resolution}"
            )
        parts = []
        # Sines and cosines of one dimension are the same all along the others: they are computed once for all.
        for dimension, (length, resolution) in enumerate(zip(shape, self.max_resolution, strict=True)):
            features = fourier_features(_axis(length, device)[:, None], self.num_bands, (resolution,)).to(dtype)
            along = [length if each == dimension else 1 for each in range(len(shape))]
            parts.append(features.view(*along, -1).expand(*shape, -1).split([1, *2 * [self.num_bands]], dim=-1))
        positions, sines, cosines = zip(*parts, strict=True)
        return torch.cat([*positions, *sines, *cosines], dim=-1).flatten(0, -2)
