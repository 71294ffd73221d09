"""Reader of .wav files for ``perceiver predict``."""

from __future__ import annotations

from collections.abc import Sequence

from perceiver_core import Batch
from perceiver_plugins.sdk.prediction import FileReader
from torch import Tensor

from perceiver_spectrogram.adapter import SpectrogramInputAdapter
from perceiver_spectrogram.clips import NOUN, SUFFIXES, collate, decode


class SpectrogramReader(FileReader):
    """Reader of .wav files, including those in folders and zip archives."""

    suffixes, noun = SUFFIXES, NOUN
    input_adapter: SpectrogramInputAdapter

    def decode(self, content: bytes, name: str) -> dict[str, Tensor]:
        return {"input_values": decode(content, name, self.input_adapter.config.sample_rate)}

    def collate(self, examples: Sequence[dict[str, Tensor]]) -> Batch:
        return collate(examples)

    def tokens(self, example: dict[str, Tensor]) -> list[str]:
        """Return the time of each frame as its name."""
        rate, hop = self.input_adapter.config.sample_rate, self.input_adapter.hop
        samples = range(0, len(example["input_values"]), hop)
        return [f"{1000 * sample // rate} ms" for sample in samples]
