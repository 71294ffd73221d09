"""Input adapter for sound: frames of a log-mel spectrogram."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from perceiver_core import AdaptedInput, Batch, EncoderConfig, InputAdapter, fourier_features
from perceiver_core.config import require_positive
from torch import Tensor


@dataclass
class SpectrogramEncoderConfig(EncoderConfig):
    """Encoder of sound.

    Args:
        sample_rate: samples per second.
        window_ms: length of a frame in milliseconds.
        hop_ms: milliseconds from one frame to the next.
        num_mel_bands: mel frequency bands per frame.
        num_time_bands: frequencies of the Fourier features of a frame's time.
        max_seconds: length of the longest clips in seconds, for the Fourier features.
    """

    sample_rate: int = 8000
    window_ms: int = 25
    hop_ms: int = 10
    num_mel_bands: int = 40
    num_time_bands: int = 16
    max_seconds: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(
            self, "sample_rate", "window_ms", "hop_ms", "num_mel_bands", "num_time_bands"
        )


class SpectrogramInputAdapter(InputAdapter):
    """Frames of a log-mel spectrogram, with Fourier features of their times."""

    filters: Tensor

    def __init__(self, config: SpectrogramEncoderConfig):
        super().__init__(num_input_channels=config.num_mel_bands + 2 * config.num_time_bands + 1)
        self.config = config
        self.hop = config.sample_rate * config.hop_ms // 1000
        self.window = config.sample_rate * config.window_ms // 1000
        filters = mel_filters(config.num_mel_bands, self.window + 1, config.sample_rate)
        self.register_buffer("filters", filters, persistent=False)

    @classmethod
    def from_config(cls, config: SpectrogramEncoderConfig) -> SpectrogramInputAdapter:
        return cls(config)

    def forward(self, batch: Batch) -> AdaptedInput:
        """Adapt ``input_values`` (b, t) with ``attention_mask`` (b, t), which is 0 at padding."""
        mask = batch["attention_mask"].bool()
        real = mask[:, :: self.hop]  # (b, m): frames are centred on samples 0, hop, 2 hop, ...
        frames = self.log_mel(batch["input_values"].float() * mask)[:, : real.shape[1]]
        frames = standardise(frames, real[..., None])
        times = self.time_features(real.shape[1], frames.device).expand(frames.shape[0], -1, -1)
        return AdaptedInput(torch.cat([frames, times], dim=-1).to(self.filters.dtype), ~real)

    def log_mel(self, waveforms: Tensor) -> Tensor:
        """Compute log-mel spectra (b, m, bands) of waveforms (b, t)."""
        window = torch.hann_window(self.window, device=waveforms.device)
        options: Any = {"window": window, "pad_mode": "constant", "return_complex": True}
        spectrum = torch.stft(waveforms, 2 * self.window, self.hop, self.window, **options)
        return (spectrum.abs().mT @ self.filters.float() + 1e-3).log()

    def time_features(self, num_frames: int, device: torch.device) -> Tensor:
        """Compute Fourier features (m, channels), independently of the length of the batch."""
        seconds = torch.arange(num_frames, device=device) * self.hop / self.config.sample_rate
        positions = 2 * seconds[:, None] / self.config.max_seconds - 1
        return fourier_features(
            positions, self.config.num_time_bands, [2 * self.config.num_time_bands]
        )

    def check_data(self, data: Any) -> None:
        """Raise ValueError if a data module has another sample rate."""
        expected, actual = self.config.sample_rate, getattr(data, "sample_rate", None)
        if actual not in (None, expected):
            raise ValueError(f"the data's sample_rate={actual} must be the model's, {expected}")

    def example_batch(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Return noise of different lengths, for ``--data=random`` and the plugin checks."""
        shape = (batch_size, self.config.sample_rate // 4)
        lengths = torch.randint(1, shape[1] + 1, (batch_size, 1), generator=generator)
        mask = (torch.arange(shape[1]) < lengths).long()
        return {"input_values": torch.randn(shape, generator=generator), "attention_mask": mask}


def standardise(frames: Tensor, real: Tensor) -> Tensor:
    """Normalise each clip to mean 0 and variance 1 over its real frames."""
    count = real.sum(dim=(1, 2), keepdim=True).clamp(min=1) * frames.shape[-1]
    frames = frames - (frames * real).sum(dim=(1, 2), keepdim=True) / count
    variance = (frames * real).square().sum(dim=(1, 2), keepdim=True) / count
    return frames / (variance + 1e-6).sqrt()


def mel_filters(num_bands: int, num_bins: int, sample_rate: int) -> Tensor:
    """Compute filters (bins, bands): overlapping triangles, evenly spaced on the mel scale.

    mel = 2595 log10(1 + hertz / 700) is O'Shaughnessy's formula (Speech Communication: Human and
    Machine, 1987, page 150). The triangles are those of Davis and Mermelstein (IEEE Transactions on
    Acoustics, Speech, and Signal Processing 28(4), 1980).
    """
    highest = 2595 * math.log10(1 + sample_rate / 2 / 700)
    corners = 700 * (10 ** (torch.linspace(0, highest, num_bands + 2) / 2595) - 1)
    low, peak, high = corners[:-2], corners[1:-1], corners[2:]
    hertz = torch.linspace(0, sample_rate / 2, num_bins)[:, None]
    return torch.minimum((hertz - low) / (peak - low), (high - hertz) / (high - peak)).clamp(min=0)
