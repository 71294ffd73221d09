"""Audio input adapters: patches of samples, or frames of a spectrogram, with Fourier positions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, pad

from perceiver_core import AdaptedInput, Batch, FourierPositions, InputAdapter, PositionLayout, fourier_features
from perceiver_plugins.audio.config import AudioPatchesEncoderConfig, AudioSpectrogramEncoderConfig
from perceiver_plugins.audio.spectrogram import LogMelSpectrogram, draw_masks

MASK = "attention_mask"
"""Optional entry of a batch, (b, samples): 0 at padding."""


class AudioInputAdapter(InputAdapter):
    """Base class of audio input adapters. Reads ``input_values`` of a batch, and ``attention_mask`` if it has one."""

    def check_data(self, data: Any) -> None:
        """Check that a data module has audio.

        Raises:
            ValueError: if its clips have none.
        """
        check_stream(data, "audio")

    def mask_of(self, batch: Batch) -> Tensor | None:
        """Return ``batch["attention_mask"]``, or None without one.

        Raises:
            ValueError: if it is not the mask of ``input_values``.
        """
        mask: Tensor | None = batch.get(MASK)
        if mask is not None and mask.shape != batch["input_values"].shape:
            raise ValueError(
                f"{MASK} of shape {tuple(mask.shape)}: must be that of input_values, "
                f"{tuple(batch['input_values'].shape)} (nest the entries of several modalities by name)"
            )
        return mask

    def samples_of(self, batch: Batch) -> Tensor:
        """Return ``batch["input_values"]``.

        Raises:
            ValueError: if it is not (b, samples), floating point.
        """
        samples: Tensor = batch["input_values"]
        if samples.dim() != 2:
            raise ValueError(f"input_values of shape {tuple(samples.shape)}: must be (recordings, samples)")
        if not samples.is_floating_point():
            raise ValueError(f"input_values of type {samples.dtype}: must be floating point")
        return samples


def check_stream(data: Any, kind: str) -> None:
    """Check that the clips of a data module have a stream, unless the module does not list its streams.

    Raises:
        ValueError: if the stream is missing.
    """
    streams = getattr(data, "streams", None)
    if streams is not None and kind not in streams:
        raise ValueError(f"the data's clips have no {kind}, which the model reads (its streams: {', '.join(streams)})")


def random_recordings(batch_size: int, num_samples: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Return a batch of noise in recordings of random lengths, from half of ``num_samples`` on."""
    samples = 2 * torch.rand(batch_size, num_samples, generator=generator) - 1
    lengths = torch.randint(-(-num_samples // 2), num_samples + 1, (batch_size, 1), generator=generator)
    mask = torch.arange(num_samples) < lengths
    return {"input_values": samples * mask, MASK: mask.long()}


class AudioPatchesInputAdapter(AudioInputAdapter):
    """Patches of raw audio with Fourier positions, which are relative to the length of a recording.

    Recordings are zero-padded to a multiple of the patch size.

    Args:
        num_samples: samples per recording of the example batch; other lengths are accepted.
        samples_per_patch: samples per input position.
        num_bands: frequencies of the Fourier positions.
        max_resolution: resolution of the Fourier positions in samples.
    """

    def __init__(self, num_samples: int, samples_per_patch: int, num_bands: int, max_resolution: int):
        fourier_positions = FourierPositions(num_bands, (max_resolution,))
        super().__init__(samples_per_patch + fourier_positions.num_channels)
        self.num_samples = num_samples
        self.samples_per_patch = samples_per_patch
        self.fourier_positions = fourier_positions

    @classmethod
    def from_config(cls, config: AudioPatchesEncoderConfig) -> AudioPatchesInputAdapter:
        assert config.max_resolution is not None
        return cls(
            config.num_audio_samples, config.samples_per_patch, config.num_frequency_bands, config.max_resolution
        )

    def example_batch(self, batch_size: int, generator: torch.Generator) -> Batch:
        return random_recordings(batch_size, self.num_samples, generator)

    def forward(self, batch: Batch) -> AdaptedInput:
        """Adapt ``batch["input_values"]`` (b, samples), floating point, and its optional mask.

        Raises:
            ValueError: if it has another shape or type.
        """
        samples = self.samples_of(batch)
        mask = self.mask_of(batch)
        if mask is None:
            patches = self._split(samples)
            positions = self.fourier_positions(patches.shape[1:2], patches.device, patches.dtype)
            return AdaptedInput(torch.cat([patches, positions.expand(patches.shape[0], -1, -1)], dim=-1))
        patches = self._split(samples * mask.to(samples.dtype))
        is_real = self._split(mask).bool().any(dim=-1)
        positions = relative_positions(is_real)[..., None]
        features = fourier_features(positions, self.fourier_positions.num_bands, self.fourier_positions.max_resolution)
        return AdaptedInput(torch.cat([patches, features.to(patches.dtype)], dim=-1), ~is_real)

    def _split(self, samples: Tensor) -> Tensor:
        """Split (b, samples) into zero-padded patches (b, m, samples per patch)."""
        padded = pad(samples, (0, -samples.shape[1] % self.samples_per_patch))
        return padded.unflatten(1, (-1, self.samples_per_patch))


def relative_positions(is_real: Tensor) -> Tensor:
    """Return positions (b, m) from -1 to 1 over the real part of each example, as on a grid without padding.

    Args:
        is_real: (b, m), False at padding, which is on the right.
    """
    index = torch.arange(is_real.shape[1], device=is_real.device, dtype=torch.float32)
    last = (is_real.sum(dim=1, keepdim=True) - 1).clamp(min=1).float()
    step = 2.0 / last
    return torch.where(index < last / 2, index * step - 1.0, 1.0 - (last - index) * step).clamp(max=1.0)


class AudioSpectrogramInputAdapter(AudioInputAdapter):
    """Frames of a log-mel spectrogram, optionally after two convolutions, with Fourier positions of their times.

    Args:
        config: the encoder's configuration.
    """

    def __init__(self, config: AudioSpectrogramEncoderConfig):
        num_channels = config.num_conv_channels or config.num_mel_bands
        super().__init__(num_channels + 2 * config.num_frequency_bands + 1)
        self.config = config
        self.hop = config.samples_of("hop_ms")
        self.spectrogram = LogMelSpectrogram(
            config.sample_rate, config.samples_of("window_ms"), self.hop, config.num_mel_bands
        )
        self.convs = nn.ModuleList()
        if config.num_conv_channels is not None:
            self.convs.append(nn.Conv1d(config.num_mel_bands, num_channels, kernel_size=3, padding=1))
            self.convs.append(nn.Conv1d(num_channels, num_channels, kernel_size=3, padding=1, stride=2))

    @classmethod
    def from_config(cls, config: AudioSpectrogramEncoderConfig) -> AudioSpectrogramInputAdapter:
        return cls(config)

    @property
    def samples_per_position(self) -> int:
        """Samples from one input position to the next."""
        return self.hop * (2 if self.convs else 1)

    def check_data(self, data: Any) -> None:
        """Check that a data module has audio of the model's sample rate.

        Raises:
            ValueError: if it has not.
        """
        super().check_data(data)
        rate = getattr(data, "sample_rate", None)
        if rate not in (None, self.config.sample_rate):
            raise ValueError(f"the data's sample_rate={rate} must be the model's, {self.config.sample_rate}")

    def example_batch(self, batch_size: int, generator: torch.Generator) -> Batch:
        return random_recordings(batch_size, 8 * self.samples_per_position, generator)

    def position_layout(self) -> PositionLayout:
        num_positions = round(self.config.max_seconds * self.config.sample_rate) // self.samples_per_position
        return PositionLayout(self.positions(max(1, num_positions), self.spectrogram.kernel.device))

    def positions(self, num_positions: int, device: torch.device) -> Tensor:
        """Compute Fourier positions (m, channels) of the times of input positions, for batches of any length."""
        seconds = torch.arange(num_positions, device=device) * self.samples_per_position / self.config.sample_rate
        bands = self.config.num_frequency_bands
        return fourier_features(2 * seconds[:, None] / self.config.max_seconds - 1, bands, [2 * bands])

    def forward(self, batch: Batch) -> AdaptedInput:
        """Adapt ``batch["input_values"]`` (b, samples), floating point, and its optional mask.

        Raises:
            ValueError: if it has another shape or type.
        """
        samples = self.samples_of(batch)
        mask = self.mask_of(batch)
        is_real = torch.ones_like(samples, dtype=torch.bool) if mask is None else mask.bool()
        features, is_real = self.spectrogram(samples, is_real)
        features = self.mask(features).to(samples.dtype)
        for index, conv in enumerate(self.convs):
            is_real = is_real[:, :: index + 1]  # the second one has stride 2
            features = gelu(conv(features)) * is_real[:, None]  # padding stays 0
        x = features.mT
        positions = self.positions(x.shape[1], x.device).to(x.dtype).expand(x.shape[0], -1, -1)
        return AdaptedInput(torch.cat([x, positions], dim=-1), None if mask is None else ~is_real)

    def mask(self, features: Tensor) -> Tensor:
        """Replace random bands and frames of spectrograms (b, bands, frames) by their mean, 0, in training."""
        size, bands, frames = features.shape
        if self.training and self.config.masked_bands:
            masked = draw_masks(size, bands, self.config.masked_bands, features.device)
            features = features.masked_fill(masked[:, :, None], 0.0)
        if self.training and self.config.masked_ms:
            masked = draw_masks(size, frames, self.config.masked_ms // self.config.hop_ms, features.device)
            features = features.masked_fill(masked[:, None], 0.0)
        return features
