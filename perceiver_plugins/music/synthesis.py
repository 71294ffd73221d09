"""Synthesis of notes to sound, to listen to the output of a model without other programs."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

from perceiver_plugins.music.notes import Notes
from perceiver_plugins.sdk.errors import DataError

SAMPLE_RATE = 22_050
"""Samples per second: half that of a CD, enough for the highest key of a piano (4186 Hz) and its second harmonic."""

MAX_SECONDS = 3600
"""Longest piece in seconds. Arbitrary: about 160 MB."""

NUM_HARMONICS = 6
DECAY = 1.0
RELEASE = 0.06
ATTACK = 0.005
"""Timbre of a plucked string, arbitrary: harmonic k has the amplitude 1 / k**1.5 and decays with the rate ``DECAY * k``
per second. Attack and release in seconds avoid clicks."""

MAX_TONE_SECONDS = 11.0
"""Longest sound of a note in seconds: its amplitude is then exp(-11), less than half a step of 16 bits."""

DRUM_DECAY = 25.0
"""Decay rate of percussion, a burst of noise, per second. Arbitrary."""

PEAK = 0.9
"""Largest absolute sample. Arbitrary: a margin below full scale."""


def frequency(pitch: int) -> float:
    """Return the frequency in Hz of a MIDI pitch in equal temperament, with A4 at 440 Hz."""
    return float(440.0 * 2.0 ** ((pitch - 69) / 12))


def synthesize(notes: Notes, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """Synthesize notes by adding decaying harmonics.

    Args:
        notes: the notes.
        sample_rate: samples per second.

    Returns:
        (samples,) float32, from -0.9 to 0.9 (:data:`PEAK`).

    Raises:
        DataError: if the notes last longer than an hour.
    """
    if notes.duration > MAX_SECONDS:
        raise DataError(f"sound: the piece lasts {notes.duration:,.0f} seconds, above the limit of {MAX_SECONDS:,}")
    mixed = np.zeros(round((notes.duration + RELEASE) * sample_rate) + 1)
    for onset, end, pitch, velocity, is_drum in zip(*(column.tolist() for column in notes), strict=True):
        first, end = round(onset * sample_rate), min(end, onset + MAX_TONE_SECONDS)
        times = np.arange(min(round((end - onset + RELEASE) * sample_rate), len(mixed) - first)) / sample_rate
        sound = _noise(times, pitch) if is_drum else _tone(times, end - onset, frequency(pitch), sample_rate)
        mixed[first : first + len(times)] += (velocity / 127) ** 2 * sound
    peak = np.abs(mixed).max(initial=0.0)
    return (mixed * (PEAK / peak if peak else 1.0)).astype(np.float32)


def _tone(times: np.ndarray, duration: float, pitch_frequency: float, sample_rate: int) -> np.ndarray:
    """Return the samples (samples,) of a note that is released after ``duration`` seconds."""
    sound = np.zeros_like(times)
    for harmonic in range(1, NUM_HARMONICS + 1):
        if harmonic * pitch_frequency < sample_rate / 2:
            amplitude = np.exp(-DECAY * harmonic * times) / harmonic**1.5
            sound += amplitude * np.sin(2 * np.pi * harmonic * pitch_frequency * times)
    return sound * np.minimum(1.0, times / ATTACK) * ((duration + RELEASE - times) / RELEASE).clip(0.0, 1.0)


def _noise(times: np.ndarray, pitch: int) -> np.ndarray:
    """Return the samples (samples,) of a percussion sound: noise with the number of the sound as seed."""
    return np.random.default_rng(pitch).uniform(-1.0, 1.0, len(times)) * np.exp(-DRUM_DECAY * times)


def write_wav(path: str | Path, notes: Notes, sample_rate: int = SAMPLE_RATE) -> None:
    """Synthesize notes to a WAV file with one channel of 16 bits.

    Args:
        path: the file.
        notes: the notes.
        sample_rate: samples per second.

    Raises:
        DataError: if the notes last longer than an hour, or the file cannot be written.
    """
    samples = (synthesize(notes, sample_rate) * (2**15 - 1)).round().astype("<i2")
    try:
        with Path(path).open("wb") as file, wave.open(file, "wb") as writer:
            writer.setnchannels(1)
            writer.setsampwidth(2)
            writer.setframerate(sample_rate)
            writer.writeframes(samples.tobytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error})") from error
