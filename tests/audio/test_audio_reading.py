"""Reader of recordings: files, arrays in memory, attention maps."""

from __future__ import annotations

import math
import zipfile

import numpy as np
import pytest
import torch

from perceiver_plugins.audio import (
    AudioPatchesInputAdapter,
    AudioReader,
    AudioSpectrogramEncoderConfig,
    AudioSpectrogramInputAdapter,
)
from perceiver_plugins.multimodal.data import ClipFormat
from perceiver_plugins.sdk.data.sound import MAX_VALUE, write_wav
from perceiver_registry import UserError

FORMAT = {"sample_rate": 8000, "max_seconds": 0.5}
FRAMES = AudioSpectrogramInputAdapter(
    AudioSpectrogramEncoderConfig(sample_rate=8000, num_mel_bands=8, num_conv_channels=4)
)
PATCHES = AudioPatchesInputAdapter(4000, 80, 4, 4000)
RAMP = np.linspace(-0.9, 0.9, 8000).astype(np.float32)


@pytest.fixture
def reader() -> AudioReader:
    return AudioReader(FORMAT, FRAMES)


def test_the_middle_of_files_archives_and_arrays_is_read(reader, tmp_path):
    write_wav(tmp_path / "a.wav", RAMP, 8000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "a.wav", "x/a.wav")
    sources = reader.expand([str(tmp_path / "a.wav"), str(tmp_path / "a.zip")])
    sources += [reader.source_of(value, "inputs[0]") for value in (RAMP, torch.from_numpy(RAMP), (RAMP, 8000))]
    integers = (RAMP * 2**15).round().astype(np.int16)
    for value in (integers, integers.astype(">i2"), torch.from_numpy(integers), (integers, np.int64(8000))):
        sources.append(reader.source_of(value, "inputs[0]"))
    for source in sources:
        np.testing.assert_allclose(reader.read(source)["input_values"], RAMP[2000:6000], atol=1e-3)
    resampled = reader.read(reader.source_of((RAMP[::2], 4000), "inputs[0]"))["input_values"]
    np.testing.assert_allclose(resampled, RAMP[2000:6000], atol=5e-3)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, r"x: must be a text or path or an array of samples, or a pair of it and its sample rate, got int"),
        (np.zeros((2, 100), np.float32), r"x: samples of shape \(2, 100\): must have one dimension \(average the"),
        (np.zeros(100, np.int64), "x: samples must be floating point numbers or integers of 16 bits, got int64"),
        (
            torch.zeros(100, dtype=torch.int32),
            "x: samples must be floating point numbers or integers of 16 bits, got int",
        ),
        (np.zeros(0), "x: must have at least one sample"),
        (np.array([np.nan]), "x: the recording has values that are not finite or larger than 1e"),
        (np.array([1e300]), "x: the recording has values that are not finite or larger than 1e"),
        ((RAMP, 0), "x: must have at least one sample, and a sample rate from 1 to 2147483647"),
        ((RAMP, 2**31), "x: must have at least one sample, and a sample rate from 1 to 2147483647"),
        ((RAMP[:1], 48000), "x: the recording is empty at 8000 samples per second"),
        ((RAMP, "8000"), "x: must be a text or path or an array"),
    ],
)
def test_other_objects_are_reported(reader, value, message):
    with pytest.raises(UserError, match=message):
        reader.source_of(value, "x")


def test_models_of_clips_read_sound_of_their_length(tmp_path):
    clip_format = ClipFormat(num_frames=4, frame_size=(8, 8), frame_rate=4, samples_per_frame=2000)
    reader = AudioReader(clip_format.description(), PATCHES)
    write_wav(tmp_path / "long.wav", np.zeros(9000), 8000)
    write_wav(tmp_path / "short.wav", np.zeros(7000), 8000)
    assert len(reader.read(str(tmp_path / "long.wav"))["input_values"]) == 8000
    with pytest.raises(UserError, match=r"short\.wav: the recording is too short: 0\.88 seconds, 1\.00 are needed"):
        reader.read(str(tmp_path / "short.wav"))
    with pytest.raises(UserError, match="not trained on sound: the description of its data lacks 'sample_rate'"):
        AudioReader({}, PATCHES)


@pytest.mark.parametrize(("adapter", "step", "number"), [(FRAMES, "20 ms", 13), (PATCHES, "10 ms", 25)])
def test_positions_have_times_and_attention_maps(adapter, step, number, tmp_path):
    reader = AudioReader(FORMAT, adapter)
    example = reader.read(reader.source_of(RAMP[:2000], "x"))
    longer = reader.read(reader.source_of(RAMP, "x"))
    x, _, _ = adapter(reader.collate([example, longer]))
    assert reader.tokens(example)[:2] == ["0 ms", step]
    assert len(reader.tokens(example)) == number
    weights = [torch.rand(x.shape[1]) for _ in range(2)]
    path = reader.draw_attention("x.wav", example, weights, tmp_path / "maps" / "x")
    assert path == tmp_path / "maps" / "x.png"
    assert path.stat().st_size > 1000


def test_spectrograms_of_the_largest_values_are_finite(reader):
    example = reader.read(reader.source_of(np.where(RAMP > 0, MAX_VALUE, -MAX_VALUE), "x"))
    assert FRAMES(reader.collate([example])).x.isfinite().all()


@pytest.mark.parametrize(
    "value", ["x", None, True, [1], math.nan, math.inf, -1, 2**40, pytest.param(10**400, id="huge")]
)
@pytest.mark.parametrize("name", ["sample_rate", "max_seconds", "min_seconds"])
def test_invalid_descriptions_are_refused(name, value):
    with pytest.raises(UserError, match=rf"^audio format: {name}: must be "):
        AudioReader({**FORMAT, name: value}, FRAMES)
