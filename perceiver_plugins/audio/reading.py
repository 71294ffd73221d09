"""Reader of recordings for ``perceiver predict``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from perceiver_core import Batch, InputAdapter
from perceiver_plugins.audio.adapters import AudioPatchesInputAdapter, AudioSpectrogramInputAdapter
from perceiver_plugins.audio.data.format import AudioFormat, collate
from perceiver_plugins.audio.spectrogram import LogMelSpectrogram
from perceiver_plugins.sdk.data.media import SOUND_SUFFIXES, VIDEO_SUFFIXES
from perceiver_plugins.sdk.data.sound import MAX_RATE, check_values, read_sound, resample_array, write_wav
from perceiver_plugins.sdk.errors import DataError
from perceiver_plugins.sdk.prediction.attention_maps import draw_attention_maps
from perceiver_plugins.sdk.prediction.file_reader import ArchivedFile, FileReader
from perceiver_plugins.sdk.prediction.reader import InMemory, Reader, not_in_memory
from perceiver_registry import UserError

NUM_PICTURE_BANDS = 40
"""Mel bands of the spectrogram below the attention maps of raw audio (arbitrary)."""

IN_MEMORY = "an array of samples, or a pair of it and its sample rate"


class AudioReader(FileReader):
    """Reader of recordings, also in zip archives, and of the sound of videos. They are preprocessed as in validation.

    Args:
        data: the ``description()`` of the data module.
        input_adapter: the model's input adapter.

    Raises:
        UserError: if the model was not trained on sound.
    """

    suffixes = SOUND_SUFFIXES + VIDEO_SUFFIXES
    noun = "recordings"

    def __init__(self, data: Mapping[str, Any], input_adapter: InputAdapter) -> None:
        super().__init__(data, input_adapter)
        self.audio_format = AudioFormat.from_description(data)

    @classmethod
    def example(cls, input_adapter: InputAdapter, folder: Path) -> tuple[Reader, list[str]]:
        num_samples = input_adapter.example_batch(1, torch.Generator())["input_values"].shape[1]
        rate = input_adapter.config.sample_rate if isinstance(input_adapter, AudioSpectrogramInputAdapter) else 8000
        for length in (num_samples, num_samples // 2):
            write_wav(folder / f"{length}.wav", np.sin(np.arange(length)), rate)
        return cls(AudioFormat(rate, num_samples / rate).description(), input_adapter), [str(folder)]

    def read(self, source: str) -> dict[str, Tensor]:
        """Read the middle of a recording.

        Raises:
            UserError: if it cannot be read, or if it is too short.
        """
        if isinstance(source, InMemory):
            return self._example(self._cut(source.value), source)
        if isinstance(source, ArchivedFile):
            return self.decode(source.read(), source)
        return self._example(read_sound(source, self.audio_format.sample_rate, self.audio_format.max_seconds), source)

    def decode(self, content: bytes, name: str) -> dict[str, Tensor]:
        """Decode the middle of a recording.

        Raises:
            UserError: if it is damaged or too short.
        """
        seconds = self.audio_format.max_seconds
        return self._example(read_sound(name, self.audio_format.sample_rate, seconds, content=content), name)

    def source_of(self, value: Any, name: str) -> InMemory:
        """Convert samples (samples,), or a pair of them and their sample rate, to a source.

        Samples are floating point numbers, or integers of 16 bits. Without a rate they have that of the training data.

        Raises:
            UserError: if it is not a recording.
        """
        samples, rate = (
            value if isinstance(value, tuple) and len(value) == 2 else (value, self.audio_format.sample_rate)
        )
        if (
            not isinstance(samples, np.ndarray | Tensor)
            or isinstance(rate, bool)
            or not isinstance(rate, int | np.integer)
        ):
            raise not_in_memory(name, value, IN_MEMORY)
        array = _to_array(samples)
        if array.ndim != 1:
            raise UserError(
                f"{name}: samples of shape {array.shape}: must have one dimension (average the channels first)"
            )
        if np.issubdtype(array.dtype, np.int16):
            array = array / np.float32(2**15)
        if not np.issubdtype(array.dtype, np.floating):
            raise UserError(f"{name}: samples must be floating point numbers or integers of 16 bits, got {array.dtype}")
        if not array.size or not 1 <= rate <= MAX_RATE:
            raise UserError(f"{name}: must have at least one sample, and a sample rate from 1 to {MAX_RATE}")
        check_values(array, name)
        resampled = resample_array(array.astype(np.float32), int(rate), self.audio_format.sample_rate)
        if not resampled.size:
            raise UserError(f"{name}: the recording is empty at {self.audio_format.sample_rate} samples per second")
        return InMemory(name, resampled)

    def _cut(self, samples: np.ndarray) -> np.ndarray:
        start = max(0, len(samples) - self.audio_format.max_samples) // 2
        return samples[start : start + self.audio_format.max_samples]

    def _example(self, samples: np.ndarray, name: str) -> dict[str, Tensor]:
        seconds = len(samples) / self.audio_format.sample_rate
        if seconds < self.audio_format.min_seconds - 0.5 / self.audio_format.sample_rate:
            raise DataError(
                f"{name}: the recording is too short: {seconds:.2f} seconds, {self.audio_format.min_seconds:.2f} are "
                "needed"
            )
        return {"input_values": torch.from_numpy(samples)}

    def collate(self, examples: Sequence[dict[str, Tensor]]) -> Batch:
        """Collate examples to ``input_values`` (b, samples) and ``attention_mask`` (b, samples)."""
        return collate(examples)

    def tokens(self, example: dict[str, Tensor]) -> list[str]:
        """Name each input position by its time: "0 ms", "20 ms", ..."""
        rate = self.audio_format.sample_rate
        return [f"{1000 * sample // rate} ms" for sample in self._positions(example)]

    def draw_attention(self, source: str, example: dict[str, Tensor], weights: Sequence[Tensor], path: Path) -> Path:
        """Draw the attention map of each cross-attention layer over the spectrogram or the waveform.

        Returns:
            Path of the PNG file.

        Raises:
            UserError: if the input positions are not times of a recording.
        """
        num_positions = len(self._positions(example))
        adapter, samples = self.input_adapter, example["input_values"][None]
        if isinstance(adapter, AudioSpectrogramInputAdapter):
            spectrogram = adapter.spectrogram
        else:
            rate = self.audio_format.sample_rate
            spectrogram = LogMelSpectrogram(rate, max(1, rate // 40), max(1, rate // 100), NUM_PICTURE_BANDS)
        picture, _ = spectrogram(samples.to(spectrogram.kernel.device), torch.ones_like(samples, dtype=torch.bool))
        maps = [values[:num_positions].detach().float().cpu()[None].numpy() for values in weights]
        return draw_attention_maps(picture[0].flip(0).cpu().numpy(), Path(source).name, maps, path, aspect=0.5)

    def _positions(self, example: dict[str, Tensor]) -> range:
        """Return the first sample of each input position."""
        adapter = self.input_adapter
        if isinstance(adapter, AudioSpectrogramInputAdapter):
            step = adapter.samples_per_position
        elif isinstance(adapter, AudioPatchesInputAdapter):
            step = adapter.samples_per_patch
        else:
            raise UserError(f"{type(adapter).__name__}: the input positions are not times of a recording")
        return range(0, len(example["input_values"]), step)


def _to_array(samples: np.ndarray | Tensor) -> np.ndarray:
    """Convert a tensor to an array of the same type, except types of floating point that NumPy lacks."""
    if isinstance(samples, np.ndarray):
        return samples
    samples = samples.detach().cpu()
    array: np.ndarray = (samples.float() if samples.is_floating_point() else samples).numpy()
    return array
