"""Sound of media files: rates, channels, parts, and damaged files."""

from __future__ import annotations

import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from perceiver_plugins.sdk.data.sound import read_header, read_sound, resample_array, write_wav
from perceiver_plugins.sdk.errors import DataError

RATE = 16000


def tone(seconds: float = 1.5, rate: int = RATE, hertz: float = 440) -> np.ndarray:
    return 0.9 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate).astype(np.float32)


def encode(path: Path, codec: str, samples: np.ndarray | None = None, layout: str = "mono", channels: int = 1) -> Path:
    """Write samples (samples,), the same in each channel."""
    samples = tone() if samples is None else samples
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, layout=layout)
        for start in range(0, len(samples), 1024):
            part = np.repeat(samples[start : start + 1024], channels)[None]
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(part), format="flt", layout=layout)
            frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


FORMATS = {".wav": "pcm_s16le", ".flac": "flac", ".mp3": "libmp3lame", ".opus": "libopus", ".m4a": "aac"}


@pytest.mark.parametrize("suffix", FORMATS)
def test_formats_have_the_samples_that_were_written(tmp_path, suffix):
    path = encode(tmp_path / f"a{suffix}", FORMATS[suffix])
    assert read_header(path).seconds == pytest.approx(1.5, abs=0.1)
    found = read_sound(path, RATE, max_seconds=10)
    assert len(found) == pytest.approx(len(tone()), abs=0.1 * RATE)
    middle = slice(RATE // 4, RATE)
    spectrum = np.abs(np.fft.rfft(found[middle] * np.hanning(RATE - RATE // 4)))
    assert np.fft.rfftfreq(RATE - RATE // 4, 1 / RATE)[spectrum.argmax()] == pytest.approx(440, abs=2)
    assert found[middle].std() == pytest.approx(0.9 / 2**0.5, abs=0.05)
    assert np.array_equal(read_sound("in an archive", RATE, 10, content=path.read_bytes()), found)


def test_lossless_files_are_exact_and_channels_are_averaged(tmp_path):
    for name, codec, layout, channels in (("a.wav", "pcm_s16le", "stereo", 2), ("b.flac", "flac", "5.1", 6)):
        path = encode(tmp_path / name, codec, layout=layout, channels=channels)
        np.testing.assert_allclose(read_sound(path, RATE, 10), tone(), atol=1e-3)


def test_parts_of_long_recordings(tmp_path):
    ramp = np.linspace(-0.9, 0.9, 2 * RATE, dtype=np.float32)
    path = encode(tmp_path / "a.flac", "flac", ramp)
    for offset, start in ((0.0, 0), (0.5, RATE // 2), (1.0, RATE)):
        np.testing.assert_allclose(read_sound(path, RATE, 1.0, offset), ramp[start : start + RATE], atol=1e-3)


def test_rates_are_converted(tmp_path):
    path = encode(tmp_path / "a.wav", "pcm_s16le")
    found = read_sound(path, 8000, 10)
    expected = tone(rate=8000)
    assert len(found) == pytest.approx(len(expected), abs=2)
    np.testing.assert_allclose(found[100:11900], expected[100:11900], atol=5e-3)
    np.testing.assert_allclose(resample_array(tone(), RATE, 8000)[100:11900], expected[100:11900], atol=5e-3)


def write_floats(path: Path, samples: np.ndarray) -> None:
    encode(path, "pcm_f32le", samples.astype(np.float32))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.write_bytes(b""), "the recording cannot be read"),
        (lambda path: path.write_text("not a recording"), "the recording cannot be read"),
        (lambda path: write_wav(path, np.zeros(0), RATE), "the recording is empty"),
        (lambda path: write_floats(path, np.array([0.1, np.nan, 0.1])), "values that are not finite"),
        (lambda path: path.write_bytes(encode(path, "pcm_s16le").read_bytes()[:9000]), "the recording is truncated"),
        (
            lambda path: path.write_bytes(encode(path.with_suffix(".mp3"), "libmp3lame").read_bytes()[:2500]),
            "the recording is truncated",
        ),
        (
            lambda path: path.write_bytes(encode(path.with_suffix(".flac"), "flac").read_bytes()[:10000]),
            "the recording cannot be read|truncated",
        ),
    ],
)
def test_damaged_files_are_reported(tmp_path, write, message):
    path = tmp_path / "a.wav"
    write(path)
    with pytest.raises(DataError, match=rf"{path}: .*({message})"):
        read_sound(path, RATE, 10)


def test_files_of_pipes_without_a_size_are_read(tmp_path):
    path = encode(tmp_path / "a.wav", "pcm_s16le")
    content = bytearray(path.read_bytes())
    content[4:8] = b"\xff" * 4
    path.write_bytes(content)
    assert len(read_sound(path, RATE, 10)) == len(tone())


def test_written_files_have_16_bits(tmp_path):
    write_wav(tmp_path / "a.wav", np.array([-2.0, 0.5, 1.0]), 4000)
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert (file.getframerate(), file.getsampwidth(), file.getnchannels()) == (4000, 2, 1)
        assert np.frombuffer(file.readframes(3), "<i2").tolist() == [-32767, 16384, 32767]
