"""Video or audio files in a folder for each class."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor

from perceiver_plugins.multimodal.data.files import (
    AUDIO_SUFFIXES,
    VIDEO_SUFFIXES,
    MissingStreamError,
    find_streams,
    read_clip,
)
from perceiver_plugins.multimodal.data.format import AUDIO, STREAMS, VIDEO, Clip, ClipFormat
from perceiver_plugins.multimodal.data.module import ClipDataModule, ClipSplits, LabelledClips
from perceiver_plugins.sdk.data.class_folders import ClassFolders, find_class_folders
from perceiver_plugins.sdk.data.file_trees import open_tree, select_files
from perceiver_plugins.sdk.data.splits import check_fraction, stratified_split
from perceiver_plugins.sdk.errors import DataError
from perceiver_registry.errors import UserError

STREAM_HINT = "; streams=video or streams=audio reads one of the two"

SKIP_HINT = "; skip_unreadable=true leaves such clips out"


class VideoFolderDataModule(ClipDataModule):
    """Your own video or audio files: a folder with a folder for each class.

    The folders' names are the names of the classes. If there is a folder ``train`` and, perhaps, ``val`` (or
    ``valid``, ``validation``) and ``test``, the folders of the classes are in these. Without one for validation, a part
    of each class is set aside, always the same.

    Files are found by their names: .mp4, .mkv, .webm, .avi, .mov and the like or, where there are none of these, .wav,
    .flac, .mp3, .ogg and the like, at any depth below the folder of their class. Hidden files and those that systems
    add are ignored; others are counted and reported. From a file that is longer than a clip, training takes a part at a
    random place, evaluation the one in the middle. Frames are taken at ``frame_rate``, and the middle of each is
    resized to ``frame_size``; the audio is the mean of its channels, resampled to ``samples_per_frame * frame_rate``
    samples a second.

    Args:
        path: The folder.
        num_frames: Frames of a clip.
        frame_size: Height and width of a frame, or one number for both.
        frame_rate: Frames a second.
        samples_per_frame: Samples of audio for each frame: 1920 of them 25 times a second are 48 kHz.
        streams: What is read of each file: video, audio or both; null: both, except for audio files, and for videos
            if none of up to 100 of them has sound.
        val_fraction: Part of the training clips that is set aside for validation where there is no folder for it.
        test_fraction: Part that is set aside for test where there is no folder for it; 0: none.
        skip_unreadable: Leave out files that are damaged, too short or without a stream that is read, instead of
            ending with an error. Each file is read once before training to find them.
    """

    missing_split: ClassVar[dict[str, str]] = {
        **ClipDataModule.missing_split,
        "test": "there is no test data: no folder 'test' with a folder for each class, and no test_fraction",
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
            raise UserError(f"test_fraction={test_fraction} must be at least 0, and with val_fraction less than 1")
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
        for split, numbers in zip(("train", *missing), parts, strict=True):
            clips[split] = train.select(numbers)
        return ClipSplits(self._found.label_names, {**clips})

    @cached_property
    def _found(self) -> ClassFolders:
        """The files of each class."""
        kinds = [AUDIO_SUFFIXES] if self._streams == AUDIO else [VIDEO_SUFFIXES]
        if self._streams is None or self._streams == AUDIO:
            kinds = [VIDEO_SUFFIXES, AUDIO_SUFFIXES]
        for suffixes in kinds:
            if names := select_files(self.tree, suffixes, "clips"):
                return find_class_folders(self.tree, names, "clips")
        endings = ", ".join(suffix for suffixes in kinds for suffix in suffixes)
        raise DataError(f"{self.path}: there are no clips ({endings})")

    @cached_property
    def streams(self) -> tuple[str, ...]:
        """Streams of a clip: video, audio or both."""
        if self._streams is not None:
            return STREAMS if self._streams == "both" else (self._streams,)
        names, _ = self._found.labelled("train")
        if Path(names[0]).suffix.lower() in AUDIO_SUFFIXES:
            return (AUDIO,)
        looked_at = [names[number] for number in np.linspace(0, len(names) - 1, min(100, len(names)), dtype=int)]
        has_audio = any(AUDIO in _streams_of(self.path / name) for name in looked_at)
        return STREAMS if has_audio else (VIDEO,)

    def _clips(self, split: str) -> FileClips:
        names, labels = self._found.labelled(split)
        return FileClips([self.path / name for name in names], torch.tensor(labels), self.clip_format)

    def _readable(self, clips: dict[str, FileClips]) -> dict[str, FileClips]:
        """Reads the beginning of each file and leaves out those that cannot be read, with a warning that counts."""
        reasons = {split: _problems(own) for split, own in clips.items()}
        wrong = [reason for own in reasons.values() for reason in own if reason]
        if wrong:
            total = sum(map(len, clips.values()))
            rank_zero_info(f"{self.path}: {len(wrong)} of {total} clips are left out: {min(wrong)}")
        kept = {split: np.flatnonzero([not reason for reason in own]) for split, own in reasons.items()}
        return {split: own.select(kept[split]) for split, own in clips.items()}


class FileClips(LabelledClips):
    """Clips in files.

    Args:
        paths: the files.
        labels: (n,) int64, the classes that they belong to.
        clip_format: what clips of them are to be like.
    """

    def __init__(self, paths: Sequence[Path], labels: Tensor, clip_format: ClipFormat) -> None:
        super().__init__(labels)
        self.paths = paths
        self.clip_format = clip_format

    def read(self, index: int, place: float) -> Clip:
        try:
            return read_clip(self.paths[index], self.clip_format, place)
        except MissingStreamError as error:
            raise DataError(f"{error}{SKIP_HINT}{STREAM_HINT}") from error
        except DataError as error:
            raise DataError(f"{error}{SKIP_HINT}") from error

    def select(self, numbers: np.ndarray) -> FileClips:
        """Some of these."""
        chosen = torch.as_tensor(numbers, dtype=torch.int64)
        return FileClips([self.paths[number] for number in chosen.tolist()], self.labels[chosen], self.clip_format)


def _problems(clips: FileClips) -> list[str]:
    """What is wrong with each file; nothing where a clip can be read."""

    def problem(path: Path) -> str:
        try:
            read_clip(path, clips.clip_format, place=0.0)
        except DataError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor() as threads:
        return list(threads.map(problem, clips.paths))


def _streams_of(path: Path) -> set[str]:
    """Kinds of the streams in a file; none if it cannot be read, which is reported when a clip of it is."""
    try:
        return find_streams(path)
    except DataError:
        return set()
