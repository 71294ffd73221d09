"""Clips that a person gives to ``perceiver predict``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perceiver_core import Batch, InputAdapter
from perceiver_plugins.multimodal.data.files import SUFFIXES, read_clip
from perceiver_plugins.multimodal.data.format import Clip, ClipFormat, to_batch
from perceiver_plugins.training.reading import Reader, files_named


class ClipReader(Reader):
    """Reads video files, as they were read for validation in training: the part in the middle.

    Args:
        data: the ``description()`` of the data module.
        input_adapter: the model's input adapter.

    Raises:
        UserError: if the model was not trained on clips.
    """

    def __init__(self, data: Mapping[str, Any], input_adapter: InputAdapter) -> None:
        super().__init__(data, input_adapter)
        self.clip_format = ClipFormat.from_description(data)

    def expand(self, inputs: Sequence[str]) -> list[str]:
        """The files that are named: each file, all videos in a folder and below, all files that match a pattern.

        Raises:
            UserError: if there is no video in a folder, or if nothing matches a pattern.
        """
        return files_named(inputs, SUFFIXES, "clips")

    def read(self, source: str) -> Clip:
        """Reads a file.

        Raises:
            DataError: if it is not there, too short, without audio, no video, or damaged.
        """
        return read_clip(source, self.clip_format)

    def collate(self, examples: Sequence[Clip]) -> Batch:
        """``pixel_values_videos`` (b, frames, 3, height, width) and ``input_values`` (b, samples)."""
        return to_batch(examples)
