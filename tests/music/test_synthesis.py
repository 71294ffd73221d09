"""Synthesis: pitches and onsets are found again in the sound."""

from __future__ import annotations

import wave

import numpy as np
import pytest

from perceiver_plugins.music.notes import Notes
from perceiver_plugins.music.synthesis import SAMPLE_RATE, frequency, synthesize, write_wav
from perceiver_plugins.sdk.errors import DataError


def find_pitch(samples: np.ndarray, rate: int) -> int:
    """Return the MIDI pitch of the strongest frequency."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 8 * len(samples)))
    return round(69 + 12 * np.log2(spectrum.argmax() * rate / (8 * len(samples)) / 440))


def test_frequencies_of_equal_temperament():
    assert [frequency(pitch) for pitch in (57, 69, 81)] == [220, 440, 880]
    assert frequency(60) == pytest.approx(261.6256, abs=1e-4)


def test_pitches_and_onsets_are_found_again():
    pitches = np.random.default_rng(0).permutation(np.arange(33, 110))
    onsets = 0.2 + 0.5 * np.arange(len(pitches))
    notes = Notes.from_columns(onsets, onsets + 0.3, pitches, np.full(len(pitches), 80), np.zeros(len(pitches)))
    samples = synthesize(notes)
    assert samples.dtype == np.float32
    assert np.abs(samples).max() == pytest.approx(0.9)
    found = []
    for onset, pitch in zip(onsets, pitches, strict=True):
        around = samples[round((onset - 0.1) * SAMPLE_RATE) : round((onset + 0.3) * SAMPLE_RATE)]
        begin = np.flatnonzero(around)[0] / SAMPLE_RATE - 0.1
        assert 0 <= begin < 0.002
        found.append(find_pitch(around[round(0.1 * SAMPLE_RATE) :], SAMPLE_RATE) == pitch)
    assert all(found)


def test_chords_have_all_pitches():
    chord = [60, 64, 67]
    notes = Notes.from_rows([(0, 1, pitch, 64, False) for pitch in chord])
    samples = synthesize(notes)[:SAMPLE_RATE]
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    level = [spectrum[round(frequency(pitch))] for pitch in range(60, 72)]
    assert sorted(60 + index for index in np.argsort(level)[-3:]) == chord


def test_louder_notes_have_more_energy_and_there_is_silence_after_them():
    samples = synthesize(Notes.from_rows([(0, 1, 60, 20, False), (2, 3, 60, 120, False), (4, 4.1, 38, 99, True)]))
    energy = [np.square(samples[SAMPLE_RATE * begin :][:SAMPLE_RATE]).sum() for begin in range(5)]
    assert energy[2] > 10 * energy[0] > 0
    assert energy[4] > 0
    assert not samples[round(1.07 * SAMPLE_RATE) : 2 * SAMPLE_RATE].any()


def test_there_is_no_aliasing():
    samples = synthesize(Notes.from_rows([(0, 1, 120, 64, False)]), sample_rate=22_050)
    spectrum = np.abs(np.fft.rfft(samples[:22_050] * np.hanning(22_050)))
    assert spectrum[:8000].max() < 0.01 * spectrum.max()  # the pitch has 8372 Hz, all harmonics are above 11 kHz


def test_empty_pieces_are_silent():
    assert not synthesize(Notes.from_rows([])).any()


def test_files(tmp_path):
    notes = Notes.from_rows([(0.5, 1, 69, 64, False)])
    write_wav(tmp_path / "a.wav", notes, sample_rate=8000)
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 8000)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    np.testing.assert_allclose(samples / 32767, synthesize(notes, 8000), atol=1 / 32767)
    assert find_pitch(samples[4000:8000].astype(float), 8000) == 69
    with pytest.raises(DataError, match=r"missing/a.wav: cannot be written \(No such file or directory\)$"):
        write_wav(tmp_path / "missing" / "a.wav", notes)


def test_long_pieces_are_refused():
    with pytest.raises(DataError, match=r"^sound: the piece lasts 3,601 seconds, above the limit of 3,600$"):
        synthesize(Notes.from_rows([(3600, 3601, 60, 64, False)]))
