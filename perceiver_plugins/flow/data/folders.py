"""Pairs of frames in files, in the layouts of FlyingChairs and of MPI Sintel; folders, or zip archives of them."""

from __future__ import annotations

import io
import os
import re
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from perceiver_plugins.flow.data.module import FlowDataModule
from perceiver_plugins.flow.data.pairs import FlowPair, PairStore
from perceiver_plugins.flow.files import parse_flo
from perceiver_plugins.image.data.decoding import SUFFIXES, decode, naming
from perceiver_plugins.training.errors import DataError
from perceiver_registry.errors import UserError, near

# Files


class Files(ABC):
    """The files in a folder or archive, by their paths in it, which have "/" between their parts.

    Attributes:
        path: the folder or archive.
        names: the paths of all files but hidden ones, sorted.
    """

    path: Path
    names: list[str]

    @abstractmethod
    def read(self, name: str) -> bytes:
        """What is in a file.

        Raises:
            OSError: if it cannot be read.
        """


class FolderFiles(Files):
    """The files in a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        found = (
            Path(place, name).relative_to(path).as_posix()
            for place, _, names in os.walk(path, followlinks=True)
            for name in names
        )
        self.names = sorted(name for name in found if not _hidden(name))

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()


class ZipFiles(Files):
    """The files in a zip archive, which is read as it is, by several processes if need be.

    Raises:
        DataError: If it is no zip archive.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._archives: dict[int, zipfile.ZipFile] = {}
        try:
            names = self._archive().namelist()
        except zipfile.BadZipFile as error:
            raise DataError(f"{path}: neither a folder nor a zip archive, or a damaged one") from error
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
        self.names = sorted(name for name in names if not name.endswith("/") and not _hidden(name))

    def read(self, name: str) -> bytes:
        try:
            return self._archive().read(name)
        except zipfile.BadZipFile as error:
            raise OSError(f"damaged in the archive: {error}") from error

    def _archive(self) -> zipfile.ZipFile:
        # An open file has one position, which processes that were forked would share.
        process = os.getpid()
        if process not in self._archives:
            self._archives[process] = zipfile.ZipFile(self.path)
        return self._archives[process]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_archives": {}}


def open_files(name: str, flag: str = "path") -> Files:
    """The files that are meant by the value of a flag.

    Raises:
        DataError: If there is no such folder or archive.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return FolderFiles(path)
    if path.exists():
        return ZipFiles(path)
    siblings = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = f" ({near(path.name, siblings)})" if siblings and len(siblings) <= 1000 else ""
    raise DataError(f"{flag}: there is no folder or archive {path}{hint}")


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


# Pairs of files


class PairNames(NamedTuple):
    """The files of a pair, by their paths.

    Attributes:
        first: the first frame.
        second: the second frame.
        flow: the flow, a .flo file.
        invalid: an image that is not black where the flow is unknown, or None.
        group: pairs of one group are much alike; validation has other groups than training.
    """

    first: str
    second: str
    flow: str
    invalid: str | None = None
    group: str = ""


class FileStore(PairStore):
    """Pairs in files.

    Args:
        files: the files.
        pairs: those that make a pair each.
    """

    def __init__(self, files: Files, pairs: Sequence[PairNames]) -> None:
        self.files = files
        self.pairs = list(pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def place(self, number: int) -> str:
        return self._place(self.pairs[number].first)

    def size(self, number: int) -> tuple[int, int]:
        name = self.pairs[number].first
        content = self._content(name)
        with naming(self._place(name)), Image.open(io.BytesIO(content)) as image:
            return image.height, image.width

    def read(self, number: int) -> FlowPair:
        names = self.pairs[number]
        flow = parse_flo(self._content(names.flow), self._place(names.flow))
        first, second = self._image(names.first, 3), self._image(names.second, 3)
        if names.invalid is not None:
            invalid = self._image(names.invalid, 1)
            self._check_size(names.invalid, invalid, flow)
            flow[invalid > 0] = np.nan
        for name, frame in ((names.first, first), (names.second, second)):
            self._check_size(name, frame, flow)
        return FlowPair(first, second, flow)

    def _image(self, name: str, num_channels: int) -> np.ndarray:
        content = self._content(name)
        with naming(self._place(name)):
            return np.asarray(decode(Image.open(io.BytesIO(content)), num_channels))

    def _content(self, name: str) -> bytes:
        try:
            return self.files.read(name)
        except OSError as error:
            raise DataError(f"{self._place(name)}: cannot be read ({error.strerror or error})") from error

    def _check_size(self, name: str, image: np.ndarray, flow: np.ndarray) -> None:
        if image.shape[:2] != flow.shape[:2]:
            height, width = image.shape[:2]
            raise DataError(
                f"{self._place(name)}: an image of {height}x{width} pixels, where the flow has "
                f"{flow.shape[0]}x{flow.shape[1]}"
            )

    def _place(self, name: str) -> str:
        return f"{self.files.path}/{name}"


def set_aside(pairs: Sequence[PairNames], fraction: float) -> tuple[list[PairNames], list[PairNames]]:
    """Sets a part of the pairs aside: whole groups, always the same.

    Args:
        pairs: the pairs.
        fraction: how large a part, one group at least; 0: none, and all pairs are in both parts.

    Returns:
        Those that remain and those that are set aside. A single group is set aside pair by pair.
    """
    if fraction == 0:
        return list(pairs), list(pairs)
    groups = sorted({pair.group for pair in pairs})
    if len(groups) == 1:
        groups = sorted(pair.flow for pair in pairs)
        pairs = [pair._replace(group=pair.flow) for pair in pairs]
    chosen = np.random.default_rng(0).permutation(len(groups))[: max(1, round(fraction * len(groups)))]
    aside = {groups[number] for number in chosen}
    return [pair for pair in pairs if pair.group not in aside], [pair for pair in pairs if pair.group in aside]


def _check_fraction(val_fraction: float) -> None:
    if not 0 <= val_fraction < 1:
        raise UserError(f"val_fraction={val_fraction} must be at least 0 and less than 1")


# FlyingChairs

NAMINGS = (
    ("_flow", "_img1", "_img2"),
    ("-flow_01", "-img_0", "-img_1"),
    ("-gt", "-img0", "-img1"),
)
"""How the names of flow, first and second frame end: in FlyingChairs, FlyingChairs2 and FlowNet 2's examples."""

SPLIT_FILE = "FlyingChairs_train_val.txt"
"""A line for each pair, in their order: 1 if it is for training, 2 if it is for validation."""


class FlyingChairsDataModule(FlowDataModule):
    """FlyingChairs (Dosovitskiy et al., "FlowNet"), or your own pairs of frames that are named like its.

    Each pair is three files, at any depth in a folder or zip archive: ``NAME_img1.ppm``, ``NAME_img2.ppm`` (or .png,
    .jpg and the like) and ``NAME_flow.flo``. The names of FlyingChairs2 (``NAME-img_0.png``, ``NAME-img_1.png``,
    ``NAME-flow_01.flo``) and of FlowNet 2's examples (``NAME-img0.png``, ``NAME-img1.png``, ``NAME-gt.flo``) serve as
    well. Pairs are for training or validation as the file FlyingChairs_train_val.txt says; without one, a part is set
    aside, always the same.

    Args:
        path: The folder, or the zip archive, which is read as it is.
        val_fraction: Part of the pairs that is set aside for validation where no file says which; 0: none, and
            validation is on the training pairs, to see how well they are known by heart.
    """

    def __init__(self, path: str, val_fraction: float = 0.1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        _check_fraction(val_fraction)
        self.files = open_files(path)
        self.val_fraction = val_fraction

    def load(self) -> dict[str, PairStore]:
        pairs = sorted(find_chairs(self.files))
        if not pairs:
            raise DataError(
                f"{self.files.path}: there are no pairs of frames: NAME_img1.ppm, NAME_img2.ppm and NAME_flow.flo are "
                "looked for, or the same with other images"
            )
        split = next((name for name in self.files.names if name.rpartition("/")[2] == SPLIT_FILE), None)
        train, validation = set_aside(pairs, self.val_fraction) if split is None else self._split_by(split, pairs)
        return {"train": FileStore(self.files, train), "validation": FileStore(self.files, validation)}

    def _split_by(self, name: str, pairs: Sequence[PairNames]) -> tuple[list[PairNames], list[PairNames]]:
        lines = self.files.read(name).decode(errors="replace").split()
        if len(lines) != len(pairs) or not {*lines} <= {"1", "2"}:
            raise DataError(
                f"{self.files.path}/{name}: {len(lines)} lines, where there are {len(pairs)} pairs; each must be 1 "
                "(training) or 2 (validation)"
            )
        by_line = {number: [pair for pair, line in zip(pairs, lines, strict=True) if line == number] for number in "12"}
        return by_line["1"], by_line["2"]


def find_chairs(files: Files) -> Iterator[PairNames]:
    """The pairs among files, by their names.

    Raises:
        DataError: If a flow has no frames.
    """
    images = {_stem(name): name for name in files.names if _is_image(name)}
    for name in files.names:
        if not name.lower().endswith(".flo"):
            continue
        stem = _stem(name)
        for flow_end, *frame_ends in NAMINGS:
            if stem.endswith(flow_end):
                frames = [stem.removesuffix(flow_end) + end for end in frame_ends]
                if missing := [frame for frame in frames if frame not in images]:
                    raise DataError(
                        f"{files.path}/{name}: there is no image {missing[0]}.ppm (or .png, .jpg, ...) for it"
                    )
                yield PairNames(images[frames[0]], images[frames[1]], name, group=stem)


# MPI Sintel


class SintelDataModule(FlowDataModule):
    """MPI Sintel (Butler et al., "A naturalistic open source movie for optical flow evaluation"), or scenes laid out
    so.

    In a folder or zip archive there are, at any depth, ``clean/SCENE/frame_0001.png``, ``final/SCENE/frame_0001.png``
    (or one of the two), ``flow/SCENE/frame_0001.flo``, the flow from each frame to the next one, and, if need be,
    ``invalid/SCENE/frame_0001.png``, white where the flow is unknown. Frames without flow (Sintel's test scenes) are
    passed over. Whole scenes are set aside for validation, always the same.

    Args:
        path: The folder, or the zip archive, which is read as it is.
        passes: Which renderings to use: clean, final (with blur and fog) or both.
        val_fraction: Part of the scenes that is set aside for validation; 0: none, and validation is on the training
            scenes.
    """

    def __init__(
        self,
        path: str,
        passes: Literal["clean", "final", "both"] = "final",
        val_fraction: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        _check_fraction(val_fraction)
        self.files = open_files(path)
        self.passes = ("clean", "final") if passes == "both" else (passes,)
        self.val_fraction = val_fraction

    def load(self) -> dict[str, PairStore]:
        pairs = [pair for name in self.passes for pair in find_scenes(self.files, name)]
        if not pairs:
            raise DataError(
                f"{self.files.path}: there are no pairs of frames: {self.passes[0]}/SCENE/frame_0001.png and "
                "flow/SCENE/frame_0001.flo are looked for"
            )
        train, validation = set_aside(pairs, self.val_fraction)
        return {"train": FileStore(self.files, train), "validation": FileStore(self.files, validation)}


def find_scenes(files: Files, rendering: str) -> Iterator[PairNames]:
    """The pairs of one rendering among files, by the folders they are in.

    Raises:
        DataError: If a flow has a first frame, but no second one.
    """
    images = {_stem(name): name for name in files.names if _is_image(name)}
    for name in files.names:
        found = re.fullmatch(r"((?:.*/)?)flow/([^/]+)/(.*?)(\d+)\.flo", name)
        if found is None:
            continue
        root, scene, frame, number = found.groups()
        following = f"{int(number) + 1:0{len(number)}d}"
        first, second = (images.get(f"{root}{rendering}/{scene}/{frame}{each}") for each in (number, following))
        if first is None:
            continue
        if second is None:
            raise DataError(f"{files.path}/{name}: there is no image {rendering}/{scene}/{frame}{following}.png for it")
        invalid = images.get(f"{root}invalid/{scene}/{frame}{number}")
        yield PairNames(first, second, name, invalid, group=scene)
