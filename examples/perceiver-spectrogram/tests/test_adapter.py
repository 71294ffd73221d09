"""Spectrograms, against those of another library."""

import numpy as np
import pytest
import torch
from transformers.audio_utils import mel_filter_bank, spectrogram

from perceiver_spectrogram.adapter import (
    SpectrogramEncoderConfig,
    SpectrogramInputAdapter,
    mel_filters,
)
from perceiver_spectrogram.clips import collate


def to_batch(clips):
    return collate([{"input_values": clip} for clip in clips])


@pytest.fixture
def adapter():
    return SpectrogramInputAdapter(SpectrogramEncoderConfig())


@pytest.mark.parametrize(
    ("num_bands", "num_bins", "sample_rate"), [(40, 201, 8000), (23, 257, 16000)]
)
def test_mel_filters_equal_those_of_transformers(num_bands, num_bins, sample_rate):
    expected = mel_filter_bank(
        num_bins, num_bands, 0, sample_rate / 2, sample_rate, mel_scale="htk"
    )
    filters = mel_filters(num_bands, num_bins, sample_rate)
    np.testing.assert_allclose(filters, expected, atol=1e-5)
    assert (filters.sum(dim=0) > 0).all()


def test_log_mel_equals_that_of_transformers(adapter):
    sound = torch.randn(1234)
    expected = spectrogram(
        sound.numpy(),
        np.hanning(201)[:-1],
        frame_length=200,
        hop_length=80,
        fft_length=400,
        power=1.0,
        pad_mode="constant",
        mel_filters=adapter.filters.numpy(),
        mel_floor=0.0,
    )
    np.testing.assert_allclose(
        adapter.log_mel(sound[None])[0].T, np.log(expected + 1e-3), atol=1e-3
    )


@pytest.mark.parametrize("length", [1, 79, 80, 81, 1600, 1601])
def test_padding_does_not_change_a_clip(adapter, length):
    clip, longer = torch.randn(length), torch.randn(3000)
    alone, both = adapter(to_batch([clip])), adapter(to_batch([clip, longer]))
    num_frames = -(-length // 80)
    assert alone.x.shape == (1, num_frames, 73)
    assert not alone.pad_mask.any()
    assert both.pad_mask.tolist() == [
        [False] * num_frames + [True] * (38 - num_frames),
        [False] * 38,
    ]
    torch.testing.assert_close(both.x[:1, :num_frames], alone.x, rtol=1e-3, atol=1e-3)


def test_loudness_is_normalised_and_time_encoded(adapter):
    sound = torch.randn(2400)
    usual, loud = adapter(to_batch([sound])).x, adapter(to_batch([sound * 7])).x
    torch.testing.assert_close(usual, loud, rtol=0.05, atol=0.05)
    times = usual[0, :, 40:]
    assert torch.cdist(times, times).fill_diagonal_(1).min() > 0.1


def test_silence_is_finite(adapter):
    assert adapter(to_batch([torch.zeros(500)])).x.isfinite().all()
