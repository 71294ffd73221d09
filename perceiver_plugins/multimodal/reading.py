"""Clips that a person gives to ``perceiver predict``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from perceiver_core import Batch, InputAdapter
from perceiver_plugins.multimodal.adapters import AudioPatchesInputAdapter, VideoPatchesInputAdapter
from perceiver_plugins.multimodal.data.files import AUDIO_SUFFIXES, VIDEO_SUFFIXES, read_clip
from perceiver_plugins.multimodal.data.format import AUDIO, VIDEO, Clip, ClipFormat, to_batch
from perceiver_plugins.sdk.prediction.reader import Reader, files_named


class ClipReader(Reader):
    """Read video or audio files, as they were read for validation in training: the part in the middle.

    Those streams are read that the model reads.

    Args:
        data: the ``description()`` of the data module.
        input_adapter: the model's input adapter.

    Raises:
        UserError: if the model was not trained on clips.
    """

    def __init__(self, data: Mapping[str, Any], input_adapter: InputAdapter) -> None:
        super().__init__(data, input_adapter)
        of_data = ClipFormat.from_description(data)
        self.clip_format = replace(of_data, streams=streams_read(input_adapter) or of_data.streams)

    def expand(self, inputs: Sequence[str]) -> list[str]:
        """The files that are named: each file, all clips in a folder and below, all files that match a pattern.

        Raises:
            UserError: if there is no clip in a folder, or if nothing matches a pattern.
        """
        suffixes = VIDEO_SUFFIXES if VIDEO in self.clip_format.streams else VIDEO_SUFFIXES + AUDIO_SUFFIXES
        return files_named(inputs, suffixes, "clips")

    def read(self, source: str) -> Clip:
        """Reads a file.

        Raises:
            DataError: if it is not there, too short, without a stream that the model reads, or damaged.
        """
        return read_clip(source, self.clip_format)

    def collate(self, examples: Sequence[Clip]) -> Batch:
        """``pixel_values_videos`` (b, frames, 3, height, width) and ``input_values`` (b, samples)."""
        return to_batch(examples)


def streams_read(input_adapter: InputAdapter) -> tuple[str, ...]:
    """Streams of clips that an input adapter reads; none if it is of another package, so that nobody knows."""
    parts = list(input_adapter.modules())
    kinds = {VIDEO: VideoPatchesInputAdapter, AUDIO: AudioPatchesInputAdapter}
    return tuple(kind for kind, adapter in kinds.items() if any(isinstance(part, adapter) for part in parts))
