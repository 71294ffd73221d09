"""Generated recordings for the tests of examples/perceiver-spectrogram, with the standard library only.

``python tests/recordings.py FOLDER`` writes them.
"""

from __future__ import annotations

import array
import math
import random
import sys
import wave
from pathlib import Path

RATE = 8000
PITCHES = {"low": 300, "high": 1500}


def write_tones(folder: Path) -> Path:
    """Write takes 5 to 24 of two words, tones of 0.1 to 0.3 seconds, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    chance = random.Random(0)
    for word, pitch in PITCHES.items():
        for take in range(5, 25):
            turns = 2 * math.pi * pitch * chance.uniform(0.9, 1.1) / RATE
            loudness = chance.uniform(2_000, 30_000)
            length = chance.randint(RATE // 10, 3 * RATE // 10)
            samples = (loudness * math.sin(turns * time) + chance.gauss(0, 500) for time in range(length))
            with wave.open(str(folder / f"{word}_nobody_{take}.wav"), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(RATE)
                file.writeframes(array.array("h", map(int, samples)).tobytes())
    return folder


if __name__ == "__main__":
    write_tones(Path(sys.argv[1]))
