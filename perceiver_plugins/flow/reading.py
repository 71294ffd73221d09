"""Reader of pairs of frames for ``perceiver predict``: images, folders of images, videos."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from perceiver_core import Batch, InputAdapter
from perceiver_plugins.flow.data.pairs import frames_tensor
from perceiver_plugins.image.data.decoding import IN_MEMORY, SUFFIXES, copy_image, decode, image_errors, open_image
from perceiver_plugins.sdk.data.file_trees import is_ignored, report_left_out
from perceiver_plugins.sdk.data.media import open_media, video_stream
from perceiver_plugins.sdk.data.missing_files import shorten_path
from perceiver_plugins.sdk.data.paths import as_path, is_folder, is_pattern, matching_files
from perceiver_plugins.sdk.errors import DataError
from perceiver_plugins.sdk.prediction.reader import InMemory, Reader, not_in_memory
from perceiver_registry import UserError

IMAGE_SUFFIXES = tuple(suffix for suffix in SUFFIXES if suffix != ".gif")
"""Suffixes of files with one frame. Any other file is read as a video."""


class Frame(NamedTuple):
    """Source of a frame.

    Attributes:
        path: an image or a video.
        number: index of the frame in the video; None for an image.
    """

    path: Path
    number: int | None = None

    def __str__(self) -> str:
        return str(self.path) if self.number is None else f"{self.path}#{self.number}"


class FramePair(str):
    """Pair of frames as one input of a prediction: the text shown to users, with the sources of the frames.

    Args:
        first: the first frame.
        second: the second frame.
    """

    first: Frame
    second: Frame

    def __new__(cls, first: Frame, second: Frame) -> FramePair:
        pair = super().__new__(cls, f"{first} {second}")
        pair.first, pair.second = first, second
        return pair


class FrameReader(Reader):
    """Reader of pairs of frames: each frame with the one that follows it.

    Args:
        data: the ``description()`` of the data module.
        input_adapter: the model's input adapter.
    """

    def __init__(self, data: Mapping[str, Any], input_adapter: InputAdapter) -> None:
        super().__init__(data, input_adapter)
        self._video: Video | None = None

    @classmethod
    def example(cls, input_adapter: InputAdapter, folder: Path) -> tuple[Reader, list[str]]:
        height, width = input_adapter.example_batch(1, torch.Generator())["frames"].shape[-2:]
        for number in range(3):
            Image.new("RGB", (width, height), (80 * number, 0, 0)).save(folder / f"{number}.png")
        return cls({}, input_adapter), [str(folder)]

    def expand(self, inputs: Sequence[str]) -> list[str]:
        """Expand inputs to the pairs of neighbouring frames of each sequence.

        A sequence is a folder of images, the images that match a pattern, the frames of a video, or consecutive
        arguments that are images. Names are sorted naturally: ``frame_10`` comes after ``frame_9``.

        Raises:
            UserError: if a folder or pattern has no images, if a video cannot be read, or if a sequence has a single
                frame.
        """
        sequences: list[list[Frame]] = []
        after_image = False
        for name in inputs:
            is_image = _is_image(as_path(name)) and not is_folder(name) and not is_pattern(name)
            if is_image and after_image:
                sequences[-1].append(Frame(as_path(name)))
            else:
                sequences.append([Frame(as_path(name))] if is_image else _sequence(name))
            after_image = is_image
        for frames in sequences:
            if len(frames) < 2:
                raise UserError(f"{frames[0]}: a single frame (optical flow needs two: give the next one as well)")
        return [FramePair(*pair) for frames in sequences for pair in pairwise(frames)]

    def source_of(self, value: Any, name: str) -> InMemory:
        """Convert a pair of frames in memory, Pillow images or arrays (height, width, 3), to a source.

        Raises:
            UserError: if it is not a pair of images.
        """
        is_sequence = isinstance(value, (tuple, list, np.ndarray))
        if not is_sequence or len(value) != 2 or not all(isinstance(frame, IN_MEMORY) for frame in value):
            raise not_in_memory(name, value, "a pair of images (of Pillow, or arrays)")
        return InMemory(name, value)

    def read(self, source: str) -> Tensor:
        """Read the frames of a pair as model input (2, 3, height, width).

        Raises:
            UserError: if a frame cannot be read, or if the frames have different sizes.
        """
        if isinstance(source, InMemory):
            with image_errors(source):
                first, second = (np.asarray(decode(copy_image(frame, source), 3)) for frame in source.value)
        elif isinstance(source, FramePair):
            first, second = self._pixels(source.first), self._pixels(source.second)
        else:
            raise UserError(f"{source}: not a pair of frames")
        if first.shape != second.shape:
            sizes = " and ".join(f"{height}x{width}" for height, width, _ in (first.shape, second.shape))
            raise UserError(f"{source}: frames of different sizes, {sizes} pixels")
        return frames_tensor(first, second)

    def collate(self, examples: Sequence[Tensor]) -> Batch:
        """Collate examples to ``frames`` (b, 2, 3, height, width).

        Raises:
            UserError: if the pairs have different sizes.
        """
        if len({example.shape for example in examples}) > 1:
            raise UserError("pairs of frames of different sizes cannot be batched")
        return {"frames": torch.stack(list(examples))}

    def _pixels(self, frame: Frame) -> np.ndarray:
        if frame.number is None:
            with image_errors(str(frame)):
                return np.asarray(decode(open_image(frame.path), 3))
        if self._video is None or self._video.path != frame.path:
            self._video = Video(frame.path)
        return self._video.read(frame.number)


class Video:
    """Frames of a video. The latest two are cached, so that sequential reading decodes each frame once.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._images = video_frames(path)
        self._next = 0
        self._latest: dict[int, np.ndarray] = {}

    def read(self, number: int) -> np.ndarray:
        """Read a frame, (height, width, 3), uint8.

        Raises:
            DataError: if it cannot be read.
        """
        if number < self._next and number not in self._latest:
            self._images, self._next, self._latest = video_frames(self.path), 0, {}
        while number not in self._latest:
            image = next(self._images, None)
            if image is None:
                raise DataError(f"{self.path}: the video ends before frame {number}")
            pixels = np.rot90(image.to_ndarray(format="rgb24"), round(image.rotation / 90) % 4)
            previous = {key: cached for key, cached in self._latest.items() if key == self._next - 1}
            self._latest = previous | {self._next: pixels}
            self._next += 1
        return self._latest[number]


def video_frames(path: Path) -> Iterator[Any]:
    """Decode the frames of a video with PyAV.

    Raises:
        DataError: if the file is missing, not a video, or damaged.
    """
    with open_media(path, "neither an image nor a video that can be read") as container:
        stream = video_stream(container)
        if stream is None:
            raise DataError(f"{path}: no video in the file")
        yield from container.decode(stream)


def natural_order(paths: Sequence[Path]) -> list[Path]:
    """Sort paths naturally: numbers in names by their value."""

    def key(path: Path) -> list[tuple[int, str]]:
        parts = re.split(r"(\d+)", str(path))
        return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]

    return sorted(paths, key=key)


def _sequence(name: str) -> list[Frame]:
    """Return the frames of a folder, a pattern or a video."""
    if not name:
        raise UserError("'': an empty name (give frames, folders of frames or videos)")
    if is_folder(name):
        return [Frame(file) for file in natural_order(_images_in(as_path(name)))]
    if is_pattern(name):
        return [Frame(file) for file in natural_order(_matching_images(name))]
    return _frames_of_video(as_path(name))


def _images_in(folder: Path) -> list[Path]:
    """Return the images in a folder, and report other files."""
    files = [file for file in sorted(folder.iterdir()) if not is_ignored(file.name) and not file.is_dir()]
    images = [file for file in files if _is_image(file)]
    if not images:
        raise UserError(f"{folder}: no images ({', '.join(IMAGE_SUFFIXES)}) in the folder")
    others = [file.name for file in files if file not in images]
    report_left_out(str(folder), len(others), "files that are not images", ", ".join(others[:3]))
    return images


def _matching_images(pattern: str) -> list[Path]:
    images = [file for file in matching_files(pattern) if _is_image(file)]
    if not images:
        raise UserError(f"no image matches {shorten_path(pattern)!r}")
    return images


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in IMAGE_SUFFIXES


def _frames_of_video(path: Path) -> list[Frame]:
    number = sum(1 for _ in video_frames(path))
    if number == 0:
        raise UserError(f"{path}: no frames in the video")
    return [Frame(path, each) for each in range(number)]
