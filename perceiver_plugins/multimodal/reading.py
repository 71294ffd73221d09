"""Reader of video and audio files for prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from perceiver_core import Batch, InputAdapter
from perceiver_plugins.multimodal.adapters import AudioPatchesInputAdapter, VideoPatchesInputAdapter
from perceiver_plugins.multimodal.data.files import read_clip
from perceiver_plugins.multimodal.data.format import AUDIO, VIDEO, Clip, ClipFormat, to_batch
from perceiver_plugins.sdk.data.media import SOUND_SUFFIXES, VIDEO_SUFFIXES
from perceiver_plugins.sdk.prediction.reader import Reader, files_named


class ClipReader(Reader):
    """Reader of the middle of video and audio files, as in validation. Reads only the streams that the model needs.

    Args:
        data: the data module's ``description()``.
        input_adapter: the model's input adapter.

    Raises:
        UserError: if the model was not trained on clips.
    """

    def __init__(self, data: Mapping[str, Any], input_adapter: InputAdapter) -> None:
        super().__init__(data, input_adapter)
        clip_format = ClipFormat.from_description(data)
        self.clip_format = replace(clip_format, streams=find_input_streams(input_adapter) or clip_format.streams)

    def expand(self, inputs: Sequence[str]) -> list[str]:
        """Return the named files, all clips below named folders, and all files that match a pattern.

        Raises:
            UserError: if a folder has no clips, or if no file matches a pattern.
        """
        suffixes = VIDEO_SUFFIXES if VIDEO in self.clip_format.streams else VIDEO_SUFFIXES + SOUND_SUFFIXES
        return files_named(inputs, suffixes, "clips")

    def read(self, source: str) -> Clip:
        """Read a file.

        Raises:
            DataError: if it is missing, damaged or too short, or lacks a stream that the model reads.
        """
        return read_clip(source, self.clip_format)

    def collate(self, examples: Sequence[Clip]) -> Batch:
        """Return ``pixel_values_videos`` (b, frames, 3, height, width) and ``input_values`` (b, samples)."""
        return to_batch(examples)


def find_input_streams(input_adapter: InputAdapter) -> tuple[str, ...]:
    """Return the streams that an input adapter reads; an empty tuple for adapters of other packages."""
    modules = list(input_adapter.modules())
    adapter_types = {VIDEO: VideoPatchesInputAdapter, AUDIO: AudioPatchesInputAdapter}
    return tuple(
        stream for stream, adapter in adapter_types.items() if any(isinstance(module, adapter) for module in modules)
    )
