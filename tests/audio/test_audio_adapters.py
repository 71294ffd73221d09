"""Input adapters of recordings, compared with a direct computation and with recordings without padding."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from perceiver_plugins.audio import (
    AudioPatchesEncoderConfig,
    AudioPatchesInputAdapter,
    AudioSpectrogramEncoderConfig,
    AudioSpectrogramInputAdapter,
)
from perceiver_plugins.audio.spectrogram import LogMelSpectrogram, draw_masks

SPECTROGRAM = {"sample_rate": 1000, "num_mel_bands": 6, "num_frequency_bands": 3, "max_seconds": 1.0}


def spectrogram_adapter(**values) -> AudioSpectrogramInputAdapter:
    return AudioSpectrogramInputAdapter(AudioSpectrogramEncoderConfig(**SPECTROGRAM | values)).eval()


def patches_adapter() -> AudioPatchesInputAdapter:
    return AudioPatchesInputAdapter.from_config(
        AudioPatchesEncoderConfig(num_audio_samples=40, samples_per_patch=5, num_frequency_bands=3)
    )


ADAPTERS = {
    "patches": patches_adapter,
    "frames": spectrogram_adapter,
    "convolutions": lambda: spectrogram_adapter(num_conv_channels=7),
}


def energies(samples: np.ndarray, window: int, hop: int, rate: int, num_bands: int) -> np.ndarray:
    """Compute mel energies (bands, frames) frame by frame with numpy."""
    padded = np.pad(samples, (window // 2, window))
    corners = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + rate / 2 / 700), num_bands + 2) / 2595) - 1)
    hertz = np.fft.rfftfreq(2 * window, 1 / rate)
    filters = [np.interp(hertz, corners[band : band + 3], [0, 1, 0], 0, 0) for band in range(num_bands)]
    hann = np.sin(np.pi * np.arange(window) / window) ** 2
    frames = [padded[start : start + window] * hann for start in range(0, len(samples), hop)]
    return np.array(filters) @ np.array([np.abs(np.fft.rfft(frame, 2 * window)) ** 2 for frame in frames]).T


def test_spectrogram_equals_a_fourier_transform_of_each_frame():
    samples = np.random.default_rng(0).standard_normal(204)
    decibels = 10 * np.log10(energies(samples, 40, 15, 1000, 6))
    expected = (decibels - decibels.mean()) / decibels.std()
    found, is_real = LogMelSpectrogram(1000, 40, 15, 6)(
        torch.from_numpy(samples)[None], torch.ones(1, 204, dtype=torch.bool)
    )
    assert is_real.all()
    np.testing.assert_allclose(found[0], expected, atol=1e-3)


def test_quiet_parts_are_limited_to_the_dynamic_range_and_silence_is_finite():
    loud_then_silent = torch.cat([torch.randn(1, 100), torch.zeros(1, 400)], dim=1)
    spectrogram = LogMelSpectrogram(1000, 25, 10, 6)
    real = torch.ones(1, 500, dtype=torch.bool)
    frames, _ = spectrogram(loud_then_silent, real)
    assert (frames[0, :, 20:] == frames.min()).all()
    louder, _ = spectrogram(100 * loud_then_silent, real)
    torch.testing.assert_close(louder, frames, atol=1e-4, rtol=0)
    assert spectrogram(torch.zeros(1, 500), real)[0].abs().max() < 1e-2


@pytest.mark.parametrize("name", ADAPTERS)
def test_padding_changes_nothing(name):
    adapter = ADAPTERS[name]()
    samples = torch.randn(1, 140)
    alone, _, _ = adapter({"input_values": samples})
    padded = {"input_values": torch.cat([samples, torch.full((1, 77), 9.0)], dim=1)}
    padded["attention_mask"] = (torch.arange(217) < 140).long()[None]
    x, pad_mask, _ = adapter(padded)
    length = alone.shape[1]
    assert pad_mask is not None
    assert (~pad_mask).sum() == length
    torch.testing.assert_close(x[:, :length], alone, atol=1e-5, rtol=0)


def test_times_are_those_of_the_positions():
    adapter = spectrogram_adapter(num_conv_channels=7)
    x, _, _ = adapter({"input_values": torch.randn(1, 140)})
    assert x.shape == (1, 7, 7 + 7)  # every 20 ms
    times = torch.arange(7) * 0.02
    torch.testing.assert_close(x[0, :, 7], 2 * times - 1)
    layout = adapter.position_layout()
    assert layout.positions.shape == (50, 7)
    torch.testing.assert_close(layout.positions[:7], x[0, :, 7:])


def test_recordings_are_padded_to_whole_patches():
    samples = torch.randn(2, 13)
    x, _, _ = patches_adapter()({"input_values": samples})
    assert torch.equal(x[:, 2, :5], torch.nn.functional.pad(samples, (0, 2))[:, 10:])


def test_masks_hide_bands_and_times_in_training():
    adapter = spectrogram_adapter(masked_bands=2, masked_ms=60)
    batch = {"input_values": torch.randn(64, 300)}
    whole = adapter(batch).x[..., :6]
    torch.manual_seed(0)
    masked = adapter.train()(batch).x[..., :6]
    hidden = masked == 0
    assert torch.equal(masked[~hidden], whole[~hidden])
    rows, columns = hidden.all(dim=2), hidden.all(dim=1)  # frames, bands
    assert torch.equal(hidden, rows[:, :, None] | columns[:, None])
    assert rows.sum(dim=1).max() <= 12
    assert 0.2 < hidden.float().mean() < 0.8
    assert torch.equal(adapter.eval()(batch).x[..., :6], whole)


def test_masks_have_at_most_the_largest_width():
    masks = draw_masks(500, 40, 3, torch.device("cpu"))
    assert masks.sum(dim=1).max() == 6  # two masks
    assert masks.sum(dim=1).min() == 0
    assert masks.any(dim=0).all()


def test_autocast_keeps_the_precision_of_the_spectrogram():
    adapter = spectrogram_adapter()
    batch = {"input_values": torch.randn(2, 300)}
    with torch.autocast("cpu", torch.bfloat16):
        found = adapter(batch).x
    torch.testing.assert_close(found, adapter(batch).x)


def test_data_must_have_the_rate_and_audio():
    adapter = spectrogram_adapter()
    adapter.check_data(SimpleNamespace(sample_rate=1000, streams=("audio",)))
    with pytest.raises(ValueError, match="data's sample_rate=8000 must be the model's, 1000"):
        adapter.check_data(SimpleNamespace(sample_rate=8000))
    with pytest.raises(ValueError, match="clips have no audio"):
        adapter.check_data(SimpleNamespace(streams=("video",)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"window_ms": 0}, "window_ms=0: must be at least 1"),
        ({"sample_rate": 90}, "hop_ms=10: must be at least one sample at 90 Hz"),
        ({"masked_bands": -1}, "masked_bands=-1: must be at least 0"),
        ({"max_seconds": 0.0}, "max_seconds=0.0: must be more than 0"),
        ({"num_mel_bands": 60}, "num_mel_bands=60: too many for 25 samples per frame"),
    ],
)
def test_invalid_configurations_are_reported(values, message):
    with pytest.raises(ValueError, match=message):
        spectrogram_adapter(**values)


@pytest.mark.parametrize("name", ["patches", "frames"])
def test_invalid_batches_are_reported(name):
    adapter = ADAPTERS[name]()
    with pytest.raises(ValueError, match=r"input_values of shape \(2, 3, 40\): must be \(recordings, samples\)"):
        adapter({"input_values": torch.zeros(2, 3, 40)})
    with pytest.raises(ValueError, match=r"input_values of type torch.int16: must be floating point"):
        adapter({"input_values": torch.zeros(2, 40, dtype=torch.int16)})
    with pytest.raises(ValueError, match=r"attention_mask of shape \(2, 7\): must be that of input_values, \(2, 40\)"):
        adapter({"input_values": torch.zeros(2, 40), "attention_mask": torch.ones(2, 7)})
