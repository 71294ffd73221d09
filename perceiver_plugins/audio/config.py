"""Configurations of the audio input adapters."""

from __future__ import annotations

from dataclasses import dataclass

from perceiver_core.config import EncoderConfig, require, require_positive


@dataclass
class AudioPatchesEncoderConfig(EncoderConfig):
    """Encoder of raw audio in patches, with Fourier positions (Perceiver IO, arXiv 2107.14795, section 4.3).

    Args:
        num_audio_samples: samples per recording in the training data; other lengths are accepted.
        samples_per_patch: samples per input position.
        num_frequency_bands: frequencies of the Fourier positions, each with a sine and a cosine.
        max_resolution: resolution of the Fourier positions in samples; their highest frequency is half of it. None:
            ``num_audio_samples``.
    """

    num_audio_samples: int = 30720
    samples_per_patch: int = 16
    num_frequency_bands: int = 192
    max_resolution: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "num_audio_samples", "samples_per_patch", "num_frequency_bands", "max_resolution")
        self.max_resolution = self.max_resolution or self.num_audio_samples


@dataclass
class AudioSpectrogramEncoderConfig(EncoderConfig):
    """Encoder of the frames of a log-mel spectrogram, with Fourier positions of their times.

    Args:
        sample_rate: samples per second.
        window_ms: length of a frame in milliseconds.
        hop_ms: milliseconds from one frame to the next.
        num_mel_bands: mel frequency bands per frame.
        num_conv_channels: channels of two convolutions over time, the second of which halves the number of input
            positions (Whisper, arXiv 2212.04356, section 2.2); None: the input positions are the frames.
        num_frequency_bands: frequencies of the Fourier positions, each with a sine and a cosine.
        max_seconds: duration that the Fourier positions resolve; longer recordings are accepted.
        masked_bands: largest number of adjacent mel bands in each of two random masks of a recording, in training
            (SpecAugment, arXiv 1904.08779); 0: no masks.
        masked_ms: largest duration in milliseconds of each of two random masks over time, in training; 0: no masks.
    """

    sample_rate: int = 16000
    window_ms: int = 25
    hop_ms: int = 10
    num_mel_bands: int = 64
    num_conv_channels: int | None = None
    num_frequency_bands: int = 16
    max_seconds: float = 10.0
    masked_bands: int = 0
    masked_ms: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "sample_rate", "window_ms", "hop_ms", "num_mel_bands", "num_conv_channels")
        require_positive(self, "num_frequency_bands")
        require(self.max_seconds > 0, self, "max_seconds", "must be more than 0")
        for field in ("masked_bands", "masked_ms"):
            require(getattr(self, field) >= 0, self, field, "must be at least 0")
        for field in ("window_ms", "hop_ms"):
            require(self.samples_of(field) >= 1, self, field, f"must be at least one sample at {self.sample_rate} Hz")

    def samples_of(self, field: str) -> int:
        """Return a duration in milliseconds as a number of samples."""
        return self.sample_rate * getattr(self, field) // 1000
