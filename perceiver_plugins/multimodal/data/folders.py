"""Video files in a folder for each class."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor

from perceiver_plugins.multimodal.data.files import SUFFIXES, read_clip
from perceiver_plugins.multimodal.data.format import Clip, ClipFormat
from perceiver_plugins.multimodal.data.module import ClipDataModule, ClipSplits, LabelledClips
from perceiver_plugins.training.errors import DataError
from perceiver_registry.errors import UserError, near

SPLITS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""How folders of splits may be called."""

SKIP_HINT = "; skip_unreadable=true leaves such clips out"


class VideoFolderDataModule(ClipDataModule):
    """Your own video files with audio: a folder with a folder for each class.

    The folders' names are the names of the classes. If there is a folder ``train`` and, perhaps, ``val`` (or
    ``valid``, ``validation``) and ``test``, the folders of the classes are in these. Without one for validation, a part
    of each class is set aside, always the same.

    Files are found by their names: .mp4, .mkv, .webm, .avi, .mov and the like, at any depth below the folder of their
    class. Hidden files are ignored. From a file that is longer than a clip, training takes a part at a random place,
    evaluation the one in the middle. Frames are taken at ``frame_rate``, and the middle of each is resized to
    ``frame_size``; the audio is mixed to one channel and resampled to ``samples_per_frame * frame_rate`` samples a
    second.

    Args:
        path: The folder.
        num_frames: Frames of a clip.
        frame_size: Height and width of a frame, or one number for both.
        frame_rate: Frames a second.
        samples_per_frame: Samples of audio for each frame: 1920 of them 25 times a second are 48 kHz.
        val_fraction: Part of the training clips that is set aside for validation where there is no folder for it.
        test_fraction: Part that is set aside for test where there is no folder for it; 0: none.
        skip_unreadable: Leave out files that are damaged, too short or without audio, instead of ending with an
            error. Each file is read once before training to find them.
        batch_size: Examples per batch and device, in training.
        valid_batch_size: Examples per batch and device in validation and test; null: the same as batch_size.
        num_workers: Processes per device that load data; null: none on CPU, otherwise up to 8, depending on
            the cores.
        seed: Seed of order and chance; null: the seed of the run (seed_everything), or 0 if there is none.
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
        val_fraction: float = 0.1,
        test_fraction: float = 0.0,
        skip_unreadable: bool = False,
        batch_size: int = 16,
        valid_batch_size: int | None = None,
        num_workers: int | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(
            num_frames, frame_size, frame_rate, samples_per_frame, batch_size, valid_batch_size, num_workers, seed
        )
        if not 0 < val_fraction < 1:
            raise UserError(f"val_fraction={val_fraction} must be more than 0 and less than 1")
        if not 0 <= test_fraction < 1 - val_fraction:
            raise UserError(f"test_fraction={test_fraction} must be at least 0, and with val_fraction less than 1")
        self.path = _existing(path)
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.skip_unreadable = skip_unreadable

    def load(self) -> ClipSplits:
        found = {split: _classes(folder) for split, folder in _split_folders(self.path).items()}
        label_names = sorted(found["train"])
        if len(label_names) < 2:
            raise DataError(f"{self.path}: there is only one folder of a class, {label_names[0]!r}; two are needed")
        clips = {split: self._clips(classes, label_names, split) for split, classes in found.items()}
        fractions = {"validation": self.val_fraction, "test": self.test_fraction}
        missing = {split: part for split, part in fractions.items() if split not in clips and part > 0}
        if self.skip_unreadable:
            clips = self._readable(clips)
        parts = stratified_split(clips["train"].labels, *missing.values())
        train = clips["train"]
        for split, numbers in zip(("train", *missing), parts, strict=True):
            clips[split] = train.select(numbers)
        return ClipSplits(label_names, {**clips})

    def _clips(self, classes: dict[str, list[Path]], label_names: list[str], split: str) -> FileClips:
        if unknown := sorted(classes.keys() - set(label_names)):
            hint = near(unknown[0], label_names, label_names[:10])
            raise DataError(f"{self.path}: the data for {split} has a class {unknown[0]!r}, training has not ({hint})")
        pairs = [(path, label) for label, name in enumerate(label_names) for path in classes.get(name, ())]
        paths, labels = zip(*pairs, strict=True)
        return FileClips(paths, torch.tensor(labels), self.clip_format)

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
        except DataError as error:
            raise DataError(f"{error}{SKIP_HINT}") from error

    def select(self, numbers: np.ndarray) -> FileClips:
        """Some of these."""
        chosen = torch.as_tensor(numbers, dtype=torch.int64)
        return FileClips([self.paths[number] for number in chosen.tolist()], self.labels[chosen], self.clip_format)


def stratified_split(labels: Tensor, *fractions: float) -> list[np.ndarray]:
    """Sets parts of the examples aside, class by class: the same ones each time, whatever the seed of a run.

    Of each class, at least one example stays and, as far as there are others, one is set aside for each part.

    Args:
        labels: (n,) the examples' classes.
        fractions: how large each of the parts is to be.

    Returns:
        Numbers of the examples that stay, then of those in each part, in ascending order.
    """
    chance = np.random.default_rng(0)
    parts: list[list[np.ndarray]] = [[] for _ in range(len(fractions) + 1)]
    for label in torch.unique(labels):
        rest = chance.permutation(torch.nonzero(labels == label)[:, 0].numpy())
        total = len(rest)
        for part, fraction in zip(parts[1:], fractions, strict=True):
            number = min(max(1, round(fraction * total)), len(rest) - 1)
            part.append(rest[:number])
            rest = rest[number:]
        parts[0].append(rest)
    return [np.sort(np.concatenate(part)) if part else np.empty(0, dtype=np.int64) for part in parts]


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


def _existing(name: str) -> Path:
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    siblings = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = f" ({near(path.name, siblings)})" if siblings and len(siblings) <= 1000 else ""
    raise DataError(f"path: there is no folder {path}{hint}")


def _folders(folder: Path) -> list[Path]:
    return [child for child in sorted(folder.iterdir()) if child.is_dir() and not child.name.startswith(".")]


def _split_folders(path: Path) -> dict[str, Path]:
    """The folder of each split."""
    named = {
        split: folder
        for folder in _folders(path)
        for split, names in SPLITS.items()
        # A class may be called "train" too: its folder holds clips, the folder of a split holds folders.
        if folder.name.lower() in names and _folders(folder)
    }
    if named and "train" not in named:
        raise DataError(
            f"{path}: there is a folder {min(named.values()).name!r}, but no 'train' with folders of classes"
        )
    return named or {"train": path}


def _classes(folder: Path) -> dict[str, list[Path]]:
    """The files of each class in a folder.

    Raises:
        DataError: If there are no classes, or no files of one of them.
    """
    classes = {child.name: list(_videos(child)) for child in _folders(folder)}
    if not classes:
        raise DataError(f"{folder}: there are no folders of classes; clips must be in a folder for each class")
    for name, files in classes.items():
        if not files:
            raise DataError(f"{folder / name}: there are no clips ({', '.join(SUFFIXES)}) in the folder of this class")
    return classes


def _videos(folder: Path) -> list[Path]:
    """The video files in a folder and below."""
    files = [file for file in sorted(folder.rglob("*")) if file.suffix.lower() in SUFFIXES and file.is_file()]
    return [file for file in files if not any(part.startswith(".") for part in file.relative_to(folder).parts)]
