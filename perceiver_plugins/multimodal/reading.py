"""Clips that a person gives to ``perceiver predict``."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perceiver_core import Batch, InputAdapter
from perceiver_plugins.multimodal.data.files import SUFFIXES, read_clip
from perceiver_plugins.multimodal.data.format import Clip, ClipFormat, to_batch
from perceiver_plugins.training.reading import Reader
from perceiver_registry import UserError


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
        found: list[str] = []
        for name in inputs:
            path = Path(name).expanduser()
            if path.is_dir():
                files = [file for file in sorted(path.rglob("*")) if _is_video(file.relative_to(path))]
                if not files:
                    raise UserError(f"{path}: there are no clips ({', '.join(SUFFIXES)}) in the folder")
                found += map(str, files)
            elif glob.has_magic(name) and not path.exists():
                matches = [match for match in sorted(glob.glob(str(path), recursive=True)) if Path(match).is_file()]
                if not matches:
                    raise UserError(f"no file matches {name!r}")
                found += matches
            else:
                found.append(str(path))
        return list(dict.fromkeys(found))

    def read(self, source: str) -> Clip:
        """Reads a file.

        Raises:
            DataError: if it is not there, too short, without audio, no video, or damaged.
        """
        return read_clip(source, self.clip_format)

    def collate(self, examples: Sequence[Clip]) -> Batch:
        """``pixel_values_videos`` (b, frames, 3, height, width) and ``input_values`` (b, samples)."""
        return to_batch(examples)


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in path.parts)
