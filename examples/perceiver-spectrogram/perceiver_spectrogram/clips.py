"""Decoding and batching of .wav files, for training (data.py) and prediction (reading.py)."""

from __future__ import annotations

import io
import wave

import numpy as np
import torch
from perceiver_plugins.sdk.data import PadCollator
from perceiver_registry import UserError
from torch import Tensor

SUFFIXES, NOUN = (".wav",), "recordings"
"""File suffixes, and the name of such files in messages."""

collate = PadCollator({"input_values": "attention_mask"})
"""Collate function that pads clips to the longest and adds a mask."""


def decode(content: bytes, name: str, sample_rate: int) -> Tensor:
    """Decode the samples (t) of a .wav file, from -1 to 1, averaged over channels.

    Raises:
        UserError: if the file is damaged or has another format.
    """
    try:
        with wave.open(io.BytesIO(content)) as file:
            sound = file.getparams()
            data = file.readframes(sound.nframes)
    except (wave.Error, EOFError) as error:
        raise UserError(f"{name}: not a .wav file ({str(error) or 'it ends too early'})") from error
    if sound.sampwidth != 2 or sound.framerate != sample_rate:
        found = f"{8 * sound.sampwidth} bits, {sound.framerate} Hz"
        raise UserError(f"{name}: must have 16 bits, {sample_rate} Hz, got {found}")
    if not data or len(data) != 2 * sound.nchannels * sound.nframes:
        raise UserError(f"{name}: has no samples, or ends too early")
    samples = np.frombuffer(data, "<i2").reshape(-1, sound.nchannels).mean(axis=1)
    return torch.from_numpy(samples / 2**15).float()
