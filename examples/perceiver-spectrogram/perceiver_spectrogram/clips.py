"""From .wav files to batches, alike in training (data.py) and prediction (reading.py)."""

from __future__ import annotations

import io
import wave
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from perceiver_core import Batch
from perceiver_registry import UserError
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def find_clips(folder: Path) -> list[Path]:
    """The .wav files in a folder and below."""
    return sorted(folder.rglob("*.wav"))


def read_all(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the .wav files in a folder or a zip archive.

    Raises:
        UserError: if it is neither.
    """
    if path.is_dir():
        yield from ((str(file), file.read_bytes()) for file in find_clips(path))
    elif path.is_file() and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = sorted(name for name in archive.namelist() if name.endswith(".wav"))
            yield from ((f"{path}/{name}", archive.read(name)) for name in names)
    else:
        raise UserError(f"path: {path} is neither a folder nor a zip archive")


def decode(content: bytes, name: str, sample_rate: int) -> Tensor:
    """The samples (t) of a .wav file, from -1 to 1; the mean of several channels.

    Raises:
        UserError: in one line that names the file, if it is something else.
    """
    try:
        with wave.open(io.BytesIO(content)) as file:
            sound = file.getparams()
            data = file.readframes(sound.nframes)
    except (wave.Error, EOFError) as error:
        raise UserError(f"{name}: not a .wav file ({str(error) or 'it ends too early'})") from error
    if sound.sampwidth != 2 or sound.framerate != sample_rate:
        found = f"{8 * sound.sampwidth} bits, {sound.framerate} Hz"
        raise UserError(f"{name}: {found}; expected is sound of 16 bits, {sample_rate} Hz")
    if not data or len(data) != 2 * sound.nchannels * sound.nframes:
        raise UserError(f"{name}: there is no sound in it, or the file ends too early")
    samples = np.frombuffer(data, "<i2").reshape(-1, sound.nchannels).mean(axis=1)
    return torch.from_numpy(samples / 2**15).float()


def to_batch(clips: Sequence[Tensor]) -> Batch:
    """What the input adapter reads: clips (t), filled up to the length of the longest."""
    masks = [torch.ones(len(clip), dtype=torch.long) for clip in clips]
    return {
        "input_values": pad_sequence(list(clips), batch_first=True),
        "attention_mask": pad_sequence(masks, batch_first=True),
    }
