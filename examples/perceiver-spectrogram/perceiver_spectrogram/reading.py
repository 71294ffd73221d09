"""What ``perceiver predict`` reads: .wav files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from perceiver_core import Batch
from perceiver_plugins.sdk.prediction import Reader
from perceiver_registry import UserError
from torch import Tensor

from perceiver_spectrogram.adapter import SpectrogramInputAdapter
from perceiver_spectrogram.clips import decode, find_clips, to_batch


class SpectrogramReader(Reader):
    """Reads .wav files; a folder stands for all that are in it."""

    input_adapter: SpectrogramInputAdapter

    def expand(self, inputs: Sequence[str]) -> list[str]:
        clips: list[str] = []
        for name in inputs:
            found = find_clips(Path(name)) if Path(name).is_dir() else [name]
            if not found:
                raise UserError(f"{name}: there are no .wav files in the folder")
            clips += map(str, found)
        return clips

    def read(self, source: str) -> Tensor:
        try:
            content = Path(source).read_bytes()
        except OSError as error:
            raise UserError(f"{source}: {error.strerror}") from error
        return decode(content, source, self.input_adapter.config.sample_rate)

    def collate(self, examples: Sequence[Tensor]) -> Batch:
        return to_batch(examples)

    def tokens(self, example: Tensor) -> list[str]:
        """When each frame is."""
        rate = self.input_adapter.config.sample_rate
        return [
            f"{1000 * sample // rate} ms"
            for sample in range(0, len(example), self.input_adapter.hop)
        ]
