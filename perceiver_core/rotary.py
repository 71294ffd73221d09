"""Rotary position embedding: channels of queries and keys, rotated by angles proportional to their position.

RoFormer (arXiv 2104.09864), section 3.2.2. The scores of rotated queries and keys depend on differences of positions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Rotary(NamedTuple):
    """Rotation of consecutive pairs of channels, (0, 1), (2, 3) and so on; channels after these stay as they are.

    Attributes:
        cos: cosines of the angles (m, pairs), or (b, 1, m, pairs) for positions of their own in each example.
        sin: sines of the angles.
    """

    cos: Tensor
    sin: Tensor

    @classmethod
    def at(
        cls, positions: Tensor, num_channels: int, base: float = 10_000.0, dtype: torch.dtype | None = None
    ) -> Rotary:
        """Compute the rotation at positions: pair i turns by position / base^(2 i / num_channels).

        The angles are computed in double precision (on devices that have it), so that positions may be large.

        Args:
            positions: (m), or (b, m).
            num_channels: rotated channels of a head, an even number.
            base: base of the wavelengths, which grow from 2 pi to about 2 pi ``base`` positions.
            dtype: data type of the rotated arrays. Lower precisions are rotated in single precision. Default: torch's.
        """
        precision = torch.float32 if positions.device.type == "mps" else torch.float64
        exponents = torch.arange(0, num_channels, 2, device=positions.device, dtype=precision) / num_channels
        angles = positions[..., None] * base**-exponents
        if positions.dim() > 1:
            angles = angles[:, None]
        dtype = torch.promote_types(dtype or torch.get_default_dtype(), torch.float32)
        return cls(angles.cos().to(dtype), angles.sin().to(dtype))

    def rotate(self, x: Tensor) -> Tensor:
        """Rotate the channels of an array at the last positions.

        Args:
            x: (b, h, n, k), where n is at most m.

        Returns:
            (b, h, n, k).
        """
        cos, sin = (each[..., -x.shape[-2] :, :] for each in self)
        num_channels = 2 * cos.shape[-1]
        even, odd = x[..., :num_channels].unflatten(-1, (-1, 2)).unbind(-1)
        rotated = torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2).to(x.dtype)
        return torch.cat([rotated, x[..., num_channels:]], dim=-1) if num_channels < x.shape[-1] else rotated
