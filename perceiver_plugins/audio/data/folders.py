"""Recordings in a folder per class, or in a zip archive of such folders."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor

from perceiver_plugins.audio.data.format import AudioFormat
from perceiver_plugins.audio.data.module import AudioDataModule, AudioSplits, LabelledRecordings
from perceiver_plugins.sdk.data.class_folders import find_class_folders
from perceiver_plugins.sdk.data.file_trees import FileTree, FolderTree, open_tree, printable, report_left_out
from perceiver_plugins.sdk.data.media import SOUND_SUFFIXES
from perceiver_plugins.sdk.data.sound import MARGIN, SoundHeader, read_header, read_sound, write_wav
from perceiver_plugins.sdk.data.splits import check_fraction, stratified_split
from perceiver_plugins.sdk.data.tree_files import require_files
from perceiver_plugins.sdk.data.unreadable import find_problems
from perceiver_plugins.sdk.errors import DataError

NOUN = "recordings"

SKIP_HINT = "; skip_unreadable=true leaves such recordings out"

MAX_DEFAULT_RATE, MAX_DEFAULT_SECONDS = 16_000, 10.0
"""Largest default rate in samples per second, and duration in seconds. Arbitrary: those of most data sets of speech."""

MAX_CACHED_SAMPLES = 2**27
"""Largest number of samples that a data module keeps in memory, 512 MiB or 140 minutes at 16 kHz (arbitrary)."""


class AudioFolderDataModule(AudioDataModule):
    """Your own recordings: a folder with a folder for each class, or a zip archive of such a folder.

    The names of the folders are the names of the classes. Optional folders ``train``, ``val`` (or ``valid``,
    ``validation``) and ``test`` contain the folders of the classes of each split. Without a folder for validation, a
    fixed part of each class is used.

    Recordings are selected by suffix (.wav, .flac, .mp3, .ogg, .opus, .m4a, .aac, .aiff, .wma), at any depth below the
    folder of their class. Hidden and system files are ignored. Other files, and links to folders that are read anyway,
    are counted and reported. Recordings up to 140 minutes in total (at 16 kHz) are decoded before training and kept
    in memory.

    Args:
        path: The folder, or the zip archive, which is not extracted.
        val_fraction: Fraction of the training recordings for validation if there is no folder for it.
        skip_unreadable: Leave out recordings that are damaged, truncated or empty, instead of ending with an error.
            All recordings are read once before training to find them.
    """

    missing_split: ClassVar[dict[str, str]] = {
        **AudioDataModule.missing_split,
        "test": "no test data: no folder 'test' with a folder for each class",
    }

    @classmethod
    def example(cls, folder: Path) -> Mapping[str, Any]:
        for number in range(8):
            file = folder / ("low" if number % 2 else "high") / f"{number}.wav"
            file.parent.mkdir(exist_ok=True)
            write_wav(file, np.sin(np.arange(800 + 100 * number) / (1 + number % 2)).astype(np.float32), 8000)
        return {"path": str(folder), "val_fraction": 0.25, "batch_size": 4}

    def __init__(self, path: str, val_fraction: float = 0.1, skip_unreadable: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_fraction(val_fraction)
        self.tree = open_tree(path)
        self.val_fraction = val_fraction
        self.skip_unreadable = skip_unreadable

    def load(self) -> AudioSplits:
        label_names, recordings = self._found
        self._report_longer(recordings)
        total = sum(file.header.seconds for files in recordings.values() for file in files.files)
        if self.skip_unreadable or total * self.sample_rate <= MAX_CACHED_SAMPLES:
            keep = total * self.sample_rate <= MAX_CACHED_SAMPLES
            recordings = self._readable(recordings, lambda file: file.decode(self.audio_format, keep))
        if "validation" not in recordings and "train" in recordings:
            train = recordings["train"]
            parts = zip(("train", "validation"), stratified_split(train.labels, self.val_fraction), strict=True)
            recordings |= {split: train.select(indices) for split, indices in parts}
        return AudioSplits(label_names, {**recordings})

    @cached_property
    def _found(self) -> tuple[list[str], dict[str, FileRecordings]]:
        """Names of the classes and recordings of each split, whose headers are read."""
        names = require_files(self.tree, SOUND_SUFFIXES, NOUN)
        found = find_class_folders(self.tree, names, NOUN, self.known.get("label_names"))
        recordings = {}
        for split in found.files:
            files, labels = found.labelled(split)
            recordings[split] = FileRecordings([SoundFile(self.tree, name) for name in files], torch.tensor(labels))
        return found.label_names, self._readable(recordings, lambda file: file.header)

    def _readable(
        self, recordings: dict[str, FileRecordings], read: Callable[[SoundFile], Any]
    ) -> dict[str, FileRecordings]:
        """Read all files, and leave out and report those that cannot be read.

        Raises:
            DataError: if a file cannot be read, unless ``skip_unreadable`` is set.
        """
        problems = {split: find_problems(read, each.files) for split, each in recordings.items()}
        unreadable = [problem for each in problems.values() for problem in each if problem]
        if unreadable and not self.skip_unreadable:
            raise DataError(f"{min(unreadable)}{SKIP_HINT}")
        total = sum(map(len, recordings.values()))
        report_left_out(str(self.tree.path), len(unreadable), f"of {total} {NOUN}", min(unreadable, default=""))
        readable = {split: np.flatnonzero([not problem for problem in each]) for split, each in problems.items()}
        return {split: each.select(readable[split]) for split, each in recordings.items()}

    def _report_longer(self, recordings: Mapping[str, FileRecordings]) -> None:
        """Report the number of recordings of which only a part is read."""
        seconds = [file.header.seconds for each in recordings.values() for file in each.files]
        # Durations of some formats are estimates.
        longer = sum(each > self.max_seconds + MARGIN for each in seconds)
        if longer:
            rank_zero_info(
                f"{printable(str(self.tree.path))}: {longer} of {len(seconds)} {NOUN} are longer than "
                f"max_seconds={self.max_seconds:g}: training reads a random part of each, evaluation the middle"
            )

    @property
    def _train_headers(self) -> list[SoundHeader]:
        _, recordings = self._found
        return [file.header for file in recordings["train"].files] if "train" in recordings else []

    def default_format(self) -> AudioFormat:
        headers = self._train_headers
        if not headers:
            raise DataError(self.missing_split["train"])
        (rate, _), *_ = Counter(header.sample_rate for header in headers).most_common(1)
        longest = math.ceil(10 * max(header.seconds for header in headers)) / 10
        return AudioFormat(min(rate, MAX_DEFAULT_RATE), min(longest, MAX_DEFAULT_SECONDS))

    @property
    def mean_seconds(self) -> float:
        seconds = [min(header.seconds, self.max_seconds) for header in self._train_headers]
        return sum(seconds) / max(1, len(seconds))


class SoundFile:
    """Recording in a folder or archive.

    Args:
        tree: the folder or archive.
        name: path of the file in it.
    """

    def __init__(self, tree: FileTree, name: str) -> None:
        self.tree = tree
        self.name = name
        self.decoded: np.ndarray | None = None

    @cached_property
    def header(self) -> SoundHeader:
        """Duration and rate.

        Raises:
            DataError: if they cannot be read.
        """
        return read_header(*self._open())

    def decode(self, audio_format: AudioFormat, keep: bool) -> None:
        """Decode the recording.

        Args:
            audio_format: format of the result.
            keep: keep the samples in memory, unless it is longer than the format's recordings.

        Raises:
            DataError: if it cannot be read.
        """
        samples = self.read(audio_format, 0.0)
        if keep and self.header.seconds <= audio_format.max_seconds:
            self.decoded = samples

    def read(self, audio_format: AudioFormat, offset: float) -> np.ndarray:
        """Return the samples (samples,), float32, of the recording or of a part of it."""
        if self.decoded is not None:
            return self.decoded
        path, content = self._open()
        return read_sound(path, audio_format.sample_rate, audio_format.max_seconds, offset, content)

    def _open(self) -> tuple[str, bytes | None]:
        """Return the path of the file, and its content if it is in an archive."""
        if isinstance(self.tree, FolderTree):
            return str(self.tree.path / self.name), None
        return self.tree.shown(self.name), self.tree.read(self.name)


class FileRecordings(LabelledRecordings):
    """Recordings in files.

    Args:
        files: the files.
        labels: (n,) int64, class indices.
    """

    def __init__(self, files: Sequence[SoundFile], labels: Tensor) -> None:
        super().__init__(labels)
        self.files = files

    def read(self, index: int, audio_format: AudioFormat, offset: float) -> np.ndarray:
        try:
            return self.files[index].read(audio_format, offset)
        except DataError as error:
            raise DataError(f"{error}{SKIP_HINT}") from error

    def select(self, indices: np.ndarray) -> FileRecordings:
        """Return the recordings at the given indices."""
        selected = torch.as_tensor(indices, dtype=torch.int64)
        return FileRecordings([self.files[index] for index in selected.tolist()], self.labels[selected])
