"""Log-mel spectrograms of recordings of different lengths."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, pad

DYNAMIC_RANGE_DB = 80.0
"""Energies lower than the loudest one of a recording by this are raised to it, as in Whisper's log-mel spectrograms."""

SMALLEST_ENERGY = 1e-10
"""Floor of the energy, as in Whisper. Silence is the lowest energy."""


class LogMelSpectrogram(nn.Module):
    """Log-mel spectrogram of recordings, each standardised to mean 0 and variance 1.

    The frames are centred on the samples 0, ``hop``, 2 ``hop`` and so on. They do not depend on padding, nor on the
    loudness of a recording. The Fourier transform is a convolution, which all export formats have.

    Args:
        sample_rate: samples per second.
        window: samples per frame, which a Hann window weights.
        hop: samples from one frame to the next.
        num_bands: mel bands.

    Raises:
        ValueError: if a band is narrower than the resolution of a frame.
    """

    kernel: Tensor
    filters: Tensor

    def __init__(self, sample_rate: int, window: int, hop: int, num_bands: int):
        super().__init__()
        self.window = window
        self.hop = hop
        filters = mel_filters(num_bands, window + 1, sample_rate)
        if not filters.any(dim=0).all():
            raise ValueError(f"num_mel_bands={num_bands}: too many for {window} samples per frame")
        self.register_buffer("kernel", fourier_kernel(window), persistent=False)
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, samples: Tensor, is_real: Tensor) -> tuple[Tensor, Tensor]:
        """Compute spectrograms, in single precision.

        Args:
            samples: (b, samples), floating point.
            is_real: (b, samples), False at padding.

        Returns:
            (b, bands, frames), 0 at padding, and (b, frames), False at padding.
        """
        is_real_frame = is_real[:, :: self.hop]
        left = self.window // 2
        padded = pad(samples.float() * is_real, (left, self.window - 1 - left))
        with torch.autocast(samples.device.type, enabled=False):
            waves = conv1d(padded[:, None], self.kernel.float(), stride=self.hop)
            cosines, sines = waves.chunk(2, dim=1)
            energies = self.filters.float().mT @ (cosines.square() + sines.square())
        decibels = 10 * energies.clamp(min=SMALLEST_ENERGY).log10()
        kept = is_real_frame[:, None]
        loudest = decibels.masked_fill(~kept, -math.inf).amax(dim=(1, 2), keepdim=True)
        decibels = torch.maximum(decibels, loudest - DYNAMIC_RANGE_DB)
        return standardise(decibels, kept), is_real_frame


def standardise(values: Tensor, kept: Tensor) -> Tensor:
    """Standardise values (b, bands, frames) by their statistics where ``kept`` (b, 1, frames); others become 0."""
    count = kept.sum(dim=2, keepdim=True).clamp(min=1) * values.shape[1]
    values = (values - (values * kept).sum(dim=(1, 2), keepdim=True) / count) * kept
    variance = values.square().sum(dim=(1, 2), keepdim=True) / count
    return values / (variance + 1e-6).sqrt()


def fourier_kernel(window: int) -> Tensor:
    """Return the convolution kernel (2 (window + 1), 1, window) of a Fourier transform of a Hann window.

    The frame is zero-padded to twice its length, so that each of the ``window + 1`` frequencies has a cosine, and then
    a sine.
    """
    time = torch.arange(window, dtype=torch.float64)
    phases = math.pi * torch.arange(window + 1, dtype=torch.float64)[:, None] * time / window
    hann = torch.hann_window(window, dtype=torch.float64)
    return (torch.cat([phases.cos(), phases.sin()]) * hann)[:, None].float()


def mel_filters(num_bands: int, num_bins: int, sample_rate: int) -> Tensor:
    """Return filters (bins, bands): overlapping triangles, evenly spaced on the mel scale up to half the sample rate.

    mel = 2595 log10(1 + hertz / 700) is O'Shaughnessy's formula (Speech Communication: Human and Machine, 1987, page
    150). The triangles are those of Davis and Mermelstein (IEEE Transactions on Acoustics, Speech, and Signal
    Processing 28(4), 1980).
    """
    highest = 2595 * math.log10(1 + sample_rate / 2 / 700)
    corners = 700 * (10 ** (torch.linspace(0, highest, num_bands + 2, dtype=torch.float64) / 2595) - 1)
    low, peak, high = corners[:-2], corners[1:-1], corners[2:]
    hertz = torch.linspace(0, sample_rate / 2, num_bins, dtype=torch.float64)[:, None]
    return torch.minimum((hertz - low) / (peak - low), (high - hertz) / (high - peak)).clamp(min=0).float()


def draw_masks(size: int, length: int, largest: int, device: torch.device) -> Tensor:
    """Draw two random masks along a dimension (SpecAugment, arXiv 1904.08779).

    Args:
        size: number of examples b.
        length: length of the dimension.
        largest: largest width of a mask.
        device: device of the result.

    Returns:
        (b, length), True where masked.
    """
    widths = (torch.rand(size, 2, 1, device=device) * (min(largest, length) + 1)).floor()
    starts = (torch.rand(size, 2, 1, device=device) * (length - widths + 1)).floor()
    positions = torch.arange(length, device=device)
    return ((positions >= starts) & (positions < starts + widths)).any(dim=1)
