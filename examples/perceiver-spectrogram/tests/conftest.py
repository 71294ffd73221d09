"""Fixtures: recordings of two words, as tones of different pitch."""

import wave
from pathlib import Path

import numpy as np
import pytest

PITCHES = {"low": 300, "high": 1500}


def write_wav(path: Path, samples: np.ndarray, rate: int = 8000, width: int = 2) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes((samples * 2**15).astype("<i2").tobytes())


@pytest.fixture(scope="session")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with takes 5 to 24 of each word, of different lengths and loudness."""
    folder = tmp_path_factory.mktemp("tones")
    rng = np.random.default_rng(0)
    for word, pitch in PITCHES.items():
        for take in range(5, 25):
            times = np.arange(rng.integers(800, 2400)) / 8000
            noise = 0.1 * rng.normal(size=len(times))
            sound = np.sin(2 * np.pi * pitch * rng.uniform(0.9, 1.1) * times) + noise
            write_wav(folder / f"{word}_nobody_{take}.wav", 0.5 * rng.uniform(0.1, 1) * sound / 1.5)
    return folder
