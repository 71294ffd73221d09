"""Video or audio files in one folder per class."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor

from perceiver_plugins.multimodal.data.files import MissingStreamError, find_streams, read_clip
from perceiver_plugins.multimodal.data.format import AUDIO, STREAMS, VIDEO, Clip, ClipFormat
from perceiver_plugins.multimodal.data.module import ClipDataModule, ClipSplits, LabelledClips
from perceiver_plugins.sdk.data.class_folders import ClassFolders, find_class_folders
from perceiver_plugins.sdk.data.file_trees import open_tree, select_files
from perceiver_plugins.sdk.data.media import SOUND_SUFFIXES, VIDEO_SUFFIXES
from perceiver_plugins.sdk.data.splits import check_fraction, stratified_split
from perceiver_plugins.sdk.data.unreadable import find_problems
from perceiver_plugins.sdk.errors import DataError
from perceiver_registry.errors import UserError

STREAM_HINT = "; streams=video or streams=audio reads only that stream"

SKIP_HINT = "; skip_unreadable=true skips such clips"


class VideoFolderDataModule(ClipDataModule):
    """Your own video or audio files, in one folder per class.

    The names of the folders are the names of the classes. The class folders can also be in folders ``train`` and,
    optionally, ``val`` (or ``valid``, ``validation``) and ``test``. Without a folder for validation, a fixed part of
    each class is split off.

    Files are found by suffix at any depth: videos (.mp4, .mkv, .webm, .avi, .mov, ...) or, if there are no videos,
    audio files (.wav, .flac, .mp3, .ogg, ...). Hidden files and files added by the operating system are ignored; other
    files are counted and reported. From a file longer than a clip, training reads a random part and evaluation the
    middle. Frames are sampled at ``frame_rate``, cropped to the centre and resized to ``frame_size``; the audio is
    averaged over channels and resampled to ``samples_per_frame * frame_rate`` samples per second.

    Args:
        path: The folder.
        num_frames: Frames per clip.
        frame_size: Height and width of a frame, or one number for both.
        frame_rate: Frames per second.
        samples_per_frame: Audio samples per frame; 1920 at 25 frames per second are 48 kHz.
        streams: Streams to read: video, audio or both; null: audio for audio files; for videos, both, or only video
            if none of up to 100 sampled files has audio.
        val_fraction: Fraction of the training clips to use for validation, without a folder for validation.
        test_fraction: Fraction of the training clips to use for test, without a folder ``test``; 0: no test data.
        skip_unreadable: Skip files that are damaged, too short or without a required stream instead of raising an
            error. Each file is read once before training to find them.
    """

    missing_split: ClassVar[dict[str, str]] = {
        **ClipDataModule.missing_split,
        "test": "no test data: no folder 'test' with one folder per class (add one, or set test_fraction)",
    }

    def __init__(
        self,
        path: str,
        num_frames: int = 16,
        frame_size: int | tuple[int, int] = 64,
        frame_rate: int = 25,
        samples_per_frame: int = 1920,
        streams: Literal["both", "video", "audio"] | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.0,
        skip_unreadable: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            num_frames=num_frames,
            frame_size=frame_size,
            frame_rate=frame_rate,
            samples_per_frame=samples_per_frame,
            **kwargs,
        )
        check_fraction(val_fraction)
        if not 0 <= test_fraction < 1 - val_fraction:
            raise UserError(
                f"test_fraction={test_fraction} must be at least 0, and its sum with val_fraction less than 1"
            )
        self.path = Path(path).expanduser()
        self.tree = open_tree(path)
        if not self.path.is_dir():
            raise DataError(f"path: {self.path} is not a folder (clips are not read from archives)")
        self._streams = streams
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.skip_unreadable = skip_unreadable

    def load(self) -> ClipSplits:
        clips = {split: self._clips(split) for split in self._found.files}
        fractions = {"validation": self.val_fraction, "test": self.test_fraction}
        missing = {split: part for split, part in fractions.items() if split not in clips and part > 0}
        if self.skip_unreadable:
            clips = self._readable(clips)
        parts = stratified_split(clips["train"].labels, *missing.values())
        train = clips["train"]
        for split, indices in zip(("train", *missing), parts, strict=True):
            clips[split] = train.select(indices)
        return ClipSplits(self._found.label_names, {**clips})

    @cached_property
    def _found(self) -> ClassFolders:
        """Files of each class."""
        kinds = [SOUND_SUFFIXES] if self._streams == AUDIO else [VIDEO_SUFFIXES]
        if self._streams is None or self._streams == AUDIO:
            kinds = [VIDEO_SUFFIXES, SOUND_SUFFIXES]
        for suffixes in kinds:
            if names := select_files(self.tree, suffixes, "clips"):
                return find_class_folders(self.tree, names, "clips")
        known = ", ".join(suffix for suffixes in kinds for suffix in suffixes)
        raise DataError(f"{self.path}: no clips found ({known})")

    @cached_property
    def streams(self) -> tuple[str, ...]:
        """Streams of a clip: video, audio or both."""
        if self._streams is not None:
            return STREAMS if self._streams == "both" else (self._streams,)
        names, _ = self._found.labelled("train")
        if Path(names[0]).suffix.lower() in SOUND_SUFFIXES:
            return (AUDIO,)
        sample = [names[index] for index in np.linspace(0, len(names) - 1, min(100, len(names)), dtype=int)]
        has_audio = any(AUDIO in _streams_of(self.path / name) for name in sample)
        return STREAMS if has_audio else (VIDEO,)

    def _clips(self, split: str) -> FileClips:
        names, labels = self._found.labelled(split)
        return FileClips([self.path / name for name in names], torch.tensor(labels), self.clip_format)

    def _readable(self, clips: dict[str, FileClips]) -> dict[str, FileClips]:
        """Read the beginning of each file, and remove and report files that cannot be read."""
        read = partial(read_clip, clip_format=self.clip_format, offset=0.0)
        problems = {split: find_problems(read, files.paths) for split, files in clips.items()}
        unreadable = [problem for each in problems.values() for problem in each if problem]
        if unreadable:
            total = sum(map(len, clips.values()))
            rank_zero_info(f"{self.path}: skipped {len(unreadable)} of {total} clips: {min(unreadable)}")
        readable = {split: np.flatnonzero([not problem for problem in each]) for split, each in problems.items()}
        return {split: files.select(readable[split]) for split, files in clips.items()}


class FileClips(LabelledClips):
    """Clips in files.

    Args:
        paths: the files.
        labels: (n,) int64, class indices.
        clip_format: format of the clips.
    """

    def __init__(self, paths: Sequence[Path], labels: Tensor, clip_format: ClipFormat) -> None:
        super().__init__(labels)
        self.paths = paths
        self.clip_format = clip_format

    def read(self, index: int, offset: float) -> Clip:
        try:
            return read_clip(self.paths[index], self.clip_format, offset)
        except MissingStreamError as error:
            raise DataError(f"{error}{SKIP_HINT}{STREAM_HINT}") from error
        except DataError as error:
            raise DataError(f"{error}{SKIP_HINT}") from error

    def select(self, indices: np.ndarray) -> FileClips:
        """Return the clips at the given indices."""
        selected = torch.as_tensor(indices, dtype=torch.int64)
        return FileClips([self.paths[index] for index in selected.tolist()], self.labels[selected], self.clip_format)


def _streams_of(path: Path) -> set[str]:
    """Return the streams of a file; an empty set if it cannot be read, which is reported when the clip is read."""
    try:
        return find_streams(path)
    except DataError:
        return set()
