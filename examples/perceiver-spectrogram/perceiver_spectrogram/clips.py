"""From .wav files to batches, alike in training (data.py) and prediction (reading.py)."""

from __future__ import annotations

import io
import wave

import numpy as np
import torch
from perceiver_plugins.sdk.data import PadCollator
from perceiver_registry import UserError
from torch import Tensor

SUFFIXES, NOUN = (".wav",), "recordings"
"""Endings of the files' names, and what the files are called in messages."""

collate = PadCollator({"input_values": "attention_mask"})
"""Makes a batch of clips, padded to the length of the longest, with a mask."""


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
