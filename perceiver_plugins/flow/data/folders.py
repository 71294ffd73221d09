"""Pairs of frames in files, in the layouts of FlyingChairs, MPI Sintel and KITTI; folders, or zip archives of them."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from perceiver_plugins.flow.data.module import FlowDataModule
from perceiver_plugins.flow.data.pairs import FlowPair, PairStore
from perceiver_plugins.flow.files import SUFFIXES as FLOW_SUFFIXES
from perceiver_plugins.flow.files import parse_flow, write_flo
from perceiver_plugins.image.data.decoding import SUFFIXES, decode, naming, open_image
from perceiver_plugins.sdk.data.file_trees import FileTree, open_tree, report_unused, select_files
from perceiver_plugins.sdk.data.splits import draw_groups
from perceiver_plugins.sdk.errors import DataError
from perceiver_registry.errors import UserError


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _by_stem(files: FileTree, suffixes: Sequence[str]) -> dict[str, str]:
    """Files of some suffixes by their paths without these; of two that differ by it alone, the last one."""
    return {_stem(name): name for name in files.names if name.lower().endswith(tuple(suffixes))}


def _flows(files: FileTree) -> dict[str, str]:
    """Files that may be flow by their paths without suffix. Beside a .flo file, a .png is a picture of it."""
    pictures, flows = (_by_stem(files, [suffix]) for suffix in reversed(FLOW_SUFFIXES))
    return dict(sorted((pictures | flows).items()))


def _report_images(files: FileTree, pairs: Sequence[PairNames]) -> None:
    """Report images that belong to no pair."""
    used = {name for pair in pairs for name in (pair.first, pair.second, pair.flow)}
    images = [name for name in files.names if name.lower().endswith(SUFFIXES)]
    report_unused(files, images, used, "images that belong to no pair")


# Pairs of files


class PairNames(NamedTuple):
    """The files of a pair, by their paths.

    Attributes:
        first: the first frame.
        second: the second frame.
        flow: the flow, a .flo file or a .png of KITTI.
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

    def __init__(self, files: FileTree, pairs: Sequence[PairNames]) -> None:
        self.files = files
        self.pairs = list(pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def place(self, number: int) -> str:
        return self._place(self.pairs[number].first)

    def size(self, number: int) -> tuple[int, int]:
        name = self.pairs[number].first
        content = self.files.read(name)
        with naming(self._place(name)), open_image(io.BytesIO(content)) as image:
            return image.height, image.width

    def read(self, number: int) -> FlowPair:
        names = self.pairs[number]
        flow = parse_flow(self.files.read(names.flow), self._place(names.flow))
        first, second = self._image(names.first, 3), self._image(names.second, 3)
        if names.invalid is not None:
            invalid = self._image(names.invalid, 1)
            self._check_size(names.invalid, invalid, flow)
            flow[invalid > 0] = np.nan
        for name, frame in ((names.first, first), (names.second, second)):
            self._check_size(name, frame, flow)
        return FlowPair(first, second, flow)

    def _image(self, name: str, num_channels: int) -> np.ndarray:
        content = self.files.read(name)
        with naming(self._place(name)):
            return np.asarray(decode(open_image(io.BytesIO(content)), num_channels))

    def _check_size(self, name: str, image: np.ndarray, flow: np.ndarray) -> None:
        if image.shape[:2] != flow.shape[:2]:
            height, width = image.shape[:2]
            raise DataError(
                f"{self._place(name)}: an image of {height}x{width} pixels, where the flow has "
                f"{flow.shape[0]}x{flow.shape[1]}"
            )

    def _place(self, name: str) -> str:
        return self.files.shown(name)


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
    aside = draw_groups(groups, fraction)
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
    .jpg and the like) and ``NAME_flow.flo`` (or a .png of KITTI's format). The names of FlyingChairs2
    (``NAME-img_0.png``, ``NAME-img_1.png``, ``NAME-flow_01.flo``) and of FlowNet 2's examples (``NAME-img0.png``,
    ``NAME-img1.png``, ``NAME-gt.flo``) serve as well. Pairs are for training or validation as the file
    FlyingChairs_train_val.txt says; without one, a part is set aside, always the same.

    Args:
        path: The folder, or the zip archive, which is read as it is.
        val_fraction: Part of the pairs that is set aside for validation where no file says which; 0: none, and
            validation is on the training pairs, to see how well they are known by heart.
    """

    @classmethod
    def example(cls, folder: Path) -> Mapping[str, Any]:
        for number in range(4):
            for frame in (1, 2):
                Image.new("RGB", (32, 24), (60 * number, 100 * frame, 0)).save(folder / f"{number}_img{frame}.png")
            write_flo(folder / f"{number}_flow.flo", np.full((24, 32, 2), number, dtype=np.float32))
        return {"path": str(folder), "image_size": [16, 24], "val_fraction": 0.25, "batch_size": 2}

    def __init__(self, path: str, val_fraction: float = 0.1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        _check_fraction(val_fraction)
        self.files = open_tree(path)
        self.val_fraction = val_fraction

    def load(self) -> dict[str, PairStore]:
        select_files(self.files, (*SUFFIXES, ".flo", ".txt"), "frames and flow")
        pairs = sorted(find_chairs(self.files))
        _report_images(self.files, pairs)
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


def find_chairs(files: FileTree) -> Iterator[PairNames]:
    """The pairs among files, by their names.

    Raises:
        DataError: If a flow has no frames.
    """
    images = _by_stem(files, SUFFIXES)
    for stem, name in _flows(files).items():
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
        self.files = open_tree(path)
        self.passes = ("clean", "final") if passes == "both" else (passes,)
        self.val_fraction = val_fraction

    def load(self) -> dict[str, PairStore]:
        select_files(self.files, (*SUFFIXES, ".flo"), "frames and flow")
        pairs = [pair for name in self.passes for pair in find_scenes(self.files, name)]
        if not pairs:
            raise DataError(
                f"{self.files.path}: there are no pairs of frames: {self.passes[0]}/SCENE/frame_0001.png and "
                "flow/SCENE/frame_0001.flo are looked for"
            )
        train, validation = set_aside(pairs, self.val_fraction)
        return {"train": FileStore(self.files, train), "validation": FileStore(self.files, validation)}


def find_scenes(files: FileTree, rendering: str) -> Iterator[PairNames]:
    """The pairs of one rendering among files, by the folders they are in.

    Raises:
        DataError: If a flow has a first frame, but no second one.
    """
    images = _by_stem(files, SUFFIXES)
    for stem, name in _flows(files).items():
        found = re.fullmatch(r"((?:.*/)?)flow/([^/]+)/(.*?)(\d+)", stem)
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


# KITTI

KITTI_FRAMES = ("image_2", "colored_0", "image_0")
"""Folders of the left camera's frames: of KITTI 2015, and of KITTI 2012 in colour and grey."""


class KittiDataModule(FlowDataModule):
    """KITTI 2012 or 2015 (Menze and Geiger, "Object scene flow for autonomous vehicles"), or pairs laid out so.

    In a folder or zip archive there are, at any depth, ``image_2/000000_10.png``, ``image_2/000000_11.png`` (in 2012
    ``colored_0`` or ``image_0``) and ``flow_occ/000000_10.png``, the flow between the two, with 16 bits a channel.
    Frames without flow (the test frames, and those before and after) are passed over. A part of the pairs is set aside
    for validation, always the same.

    Args:
        path: The folder, or the zip archive, which is read as it is.
        flow: Which flow to use: occ (of all pixels) or noc (of those that are in both frames).
        val_fraction: Part of the pairs that is set aside for validation; 0: none, and validation is on the training
            pairs.
    """

    def __init__(
        self, path: str, flow: Literal["occ", "noc"] = "occ", val_fraction: float = 0.1, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        _check_fraction(val_fraction)
        self.files = open_tree(path)
        self.flow = flow
        self.val_fraction = val_fraction

    def load(self) -> dict[str, PairStore]:
        select_files(self.files, SUFFIXES, "frames and flow")
        pairs = list(find_kitti(self.files, self.flow))
        if not pairs:
            raise DataError(
                f"{self.files.path}: there are no pairs of frames: {KITTI_FRAMES[0]}/000000_10.png, "
                f"{KITTI_FRAMES[0]}/000000_11.png and flow_{self.flow}/000000_10.png are looked for"
            )
        train, validation = set_aside(pairs, self.val_fraction)
        return {"train": FileStore(self.files, train), "validation": FileStore(self.files, validation)}


def find_kitti(files: FileTree, flow: str) -> Iterator[PairNames]:
    """The pairs of KITTI among files.

    Args:
        files: the files.
        flow: "occ" or "noc".

    Raises:
        DataError: If a flow has no frames.
    """
    images = _by_stem(files, SUFFIXES)
    for stem, name in _by_stem(files, [".png"]).items():
        found = re.fullmatch(rf"((?:.*/)?)flow_{flow}/(.*?)(\d+)", stem)
        if found is None:
            continue
        root, scene, number = found.groups()
        following = f"{int(number) + 1:0{len(number)}d}"
        for folder in KITTI_FRAMES:
            first, second = (images.get(f"{root}{folder}/{scene}{each}") for each in (number, following))
            if first is not None and second is not None:
                yield PairNames(first, second, name, group=stem)
                break
        else:
            raise DataError(
                f"{files.shown(name)}: there are no images {KITTI_FRAMES[0]}/{scene}{number}.png and "
                f"{scene}{following}.png for it"
            )
