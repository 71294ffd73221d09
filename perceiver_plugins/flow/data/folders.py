"""Data modules of files in the layouts of FlyingChairs, MPI Sintel and KITTI, in folders or zip archives."""

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
from perceiver_plugins.image.data.decoding import SUFFIXES, decode, image_errors, open_image
from perceiver_plugins.sdk.data.file_trees import FileTree, open_tree, report_unused, select_files
from perceiver_plugins.sdk.data.splits import draw_groups
from perceiver_plugins.sdk.errors import DataError
from perceiver_registry.errors import UserError


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _by_stem(files: FileTree, suffixes: Sequence[str]) -> dict[str, str]:
    """Map paths without suffix to files with one of the suffixes; the last one if several differ in it only."""
    return {_stem(name): name for name in files.names if name.lower().endswith(tuple(suffixes))}


def _flows(files: FileTree) -> dict[str, str]:
    """Map paths without suffix to flow files. A .png file beside a .flo file is a picture of it."""
    pictures, flows = (_by_stem(files, [suffix]) for suffix in reversed(FLOW_SUFFIXES))
    return dict(sorted((pictures | flows).items()))


def _report_images(files: FileTree, pairs: Sequence[PairNames]) -> None:
    """Report images that are not part of a pair."""
    used = {name for pair in pairs for name in (pair.first, pair.second, pair.flow)}
    images = [name for name in files.names if name.lower().endswith(SUFFIXES)]
    report_unused(files, images, used, "images that are not part of a pair")


# Pairs of files


class PairNames(NamedTuple):
    """Paths of the files of a pair.

    Attributes:
        first: first frame.
        second: second frame.
        flow: flow, a .flo file or a KITTI .png.
        invalid: mask image, not black where the flow is unknown; None: no mask.
        group: group of similar pairs. Training and validation have different groups.
    """

    first: str
    second: str
    flow: str
    invalid: str | None = None
    group: str = ""


class FileStore(PairStore):
    """Pairs in files.

    Args:
        files: the folder or archive.
        pairs: the paths of each pair.
    """

    def __init__(self, files: FileTree, pairs: Sequence[PairNames]) -> None:
        self.files = files
        self.pairs = list(pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def location(self, number: int) -> str:
        return self.files.shown(self.pairs[number].first)

    def size(self, number: int) -> tuple[int, int]:
        name = self.pairs[number].first
        content = self.files.read(name)
        with image_errors(self.files.shown(name)), open_image(io.BytesIO(content)) as image:
            return image.height, image.width

    def read(self, number: int) -> FlowPair:
        names = self.pairs[number]
        flow = parse_flow(self.files.read(names.flow), self.files.shown(names.flow))
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
        with image_errors(self.files.shown(name)):
            return np.asarray(decode(open_image(io.BytesIO(content)), num_channels))

    def _check_size(self, name: str, image: np.ndarray, flow: np.ndarray) -> None:
        if image.shape[:2] != flow.shape[:2]:
            height, width = image.shape[:2]
            raise DataError(
                f"{self.files.shown(name)}: an image of {height}x{width} pixels for a flow of "
                f"{flow.shape[0]}x{flow.shape[1]}"
            )


def split_pairs(pairs: Sequence[PairNames], fraction: float) -> tuple[list[PairNames], list[PairNames]]:
    """Split pairs into training and validation data by whole groups, the same way in each run.

    Args:
        pairs: the pairs.
        fraction: fraction of the groups for validation, at least one group; 0: all pairs are in both splits.

    Returns:
        The pairs for training and those for validation. A single group is split by pairs.
    """
    if fraction == 0:
        return list(pairs), list(pairs)
    groups = sorted({pair.group for pair in pairs})
    if len(groups) == 1:
        groups = sorted(pair.flow for pair in pairs)
        pairs = [pair._replace(group=pair.flow) for pair in pairs]
    validation = draw_groups(groups, fraction)
    return [pair for pair in pairs if pair.group not in validation], [
        pair for pair in pairs if pair.group in validation
    ]


def _check_fraction(val_fraction: float) -> None:
    if not 0 <= val_fraction < 1:
        raise UserError(f"val_fraction={val_fraction} must be at least 0 and less than 1")


# FlyingChairs

NAMINGS = (
    ("_flow", "_img1", "_img2"),
    ("-flow_01", "-img_0", "-img_1"),
    ("-gt", "-img0", "-img1"),
)
"""Name endings of flow, first and second frame: FlyingChairs, FlyingChairs2 and the examples of FlowNet 2."""

SPLIT_FILE = "FlyingChairs_train_val.txt"
"""File with a line for each pair, in their order: 1 for training, 2 for validation."""


class FlyingChairsDataModule(FlowDataModule):
    """FlyingChairs (Dosovitskiy et al., "FlowNet"), or your own pairs of frames with the same naming scheme.

    Each pair consists of three files, at any depth in a folder or zip archive: ``NAME_img1.ppm``, ``NAME_img2.ppm`` (or
    .png, .jpg and similar) and ``NAME_flow.flo`` (or a KITTI .png). The names of FlyingChairs2 (``NAME-img_0.png``,
    ``NAME-img_1.png``, ``NAME-flow_01.flo``) and of the examples of FlowNet 2 (``NAME-img0.png``, ``NAME-img1.png``,
    ``NAME-gt.flo``) work as well. The file FlyingChairs_train_val.txt assigns pairs to training and validation; without
    it, a fixed part is used for validation.

    Args:
        path: The folder, or the zip archive, which is not extracted.
        val_fraction: Fraction of the pairs for validation if no file assigns them; 0: validate on the training pairs.
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
                f"{self.files.path}: no pairs of frames (expected NAME_img1.ppm, NAME_img2.ppm and NAME_flow.flo, or "
                "other image formats)"
            )
        split = next((name for name in self.files.names if name.rpartition("/")[2] == SPLIT_FILE), None)
        train, validation = split_pairs(pairs, self.val_fraction) if split is None else self._split_by(split, pairs)
        return {"train": FileStore(self.files, train), "validation": FileStore(self.files, validation)}

    def _split_by(self, name: str, pairs: Sequence[PairNames]) -> tuple[list[PairNames], list[PairNames]]:
        lines = self.files.read(name).decode(errors="replace").split()
        if len(lines) != len(pairs) or not {*lines} <= {"1", "2"}:
            raise DataError(
                f"{self.files.path}/{name}: {len(lines)} lines for {len(pairs)} pairs (each line must be 1 for "
                "training or 2 for validation)"
            )
        by_line = {number: [pair for pair, line in zip(pairs, lines, strict=True) if line == number] for number in "12"}
        return by_line["1"], by_line["2"]


def find_chairs(files: FileTree) -> Iterator[PairNames]:
    """Find the pairs of FlyingChairs among files, by their names.

    Raises:
        DataError: If the frames of a flow are missing.
    """
    images = _by_stem(files, SUFFIXES)
    for stem, name in _flows(files).items():
        for flow_end, *frame_ends in NAMINGS:
            if stem.endswith(flow_end):
                frames = [stem.removesuffix(flow_end) + end for end in frame_ends]
                if missing := [frame for frame in frames if frame not in images]:
                    raise DataError(f"{files.path}/{name}: its frame {missing[0]}.ppm (or .png, .jpg, ...) is missing")
                yield PairNames(images[frames[0]], images[frames[1]], name, group=stem)


# MPI Sintel


class SintelDataModule(FlowDataModule):
    """MPI Sintel (Butler et al., "A naturalistic open source movie for optical flow evaluation"), or your own scenes.

    Expected at any depth in a folder or zip archive: frames ``clean/SCENE/frame_0001.png``,
    ``final/SCENE/frame_0001.png`` (or one of the two); ``flow/SCENE/frame_0001.flo``, the flow from each frame to the
    next one; optionally ``invalid/SCENE/frame_0001.png``, white where the flow is unknown. Frames without flow, such as
    Sintel's test scenes, are skipped. A fixed set of whole scenes is used for validation.

    Args:
        path: The folder, or the zip archive, which is not extracted.
        passes: Renderings to use: clean, final (with blur and fog) or both.
        val_fraction: Fraction of the scenes for validation; 0: validate on the training scenes.
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
                f"{self.files.path}: no pairs of frames (expected {self.passes[0]}/SCENE/frame_0001.png and "
                "flow/SCENE/frame_0001.flo)"
            )
        train, validation = split_pairs(pairs, self.val_fraction)
        return {"train": FileStore(self.files, train), "validation": FileStore(self.files, validation)}


def find_scenes(files: FileTree, rendering: str) -> Iterator[PairNames]:
    """Find the pairs of one rendering of MPI Sintel among files, by their folders.

    Raises:
        DataError: If the second frame of a flow is missing.
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
            raise DataError(f"{files.path}/{name}: its frame {rendering}/{scene}/{frame}{following}.png is missing")
        invalid = images.get(f"{root}invalid/{scene}/{frame}{number}")
        yield PairNames(first, second, name, invalid, group=scene)


# KITTI

KITTI_FRAMES = ("image_2", "colored_0", "image_0")
"""Folders of the left camera's frames: KITTI 2015, KITTI 2012 in colour, KITTI 2012 in greyscale."""


class KittiDataModule(FlowDataModule):
    """KITTI 2012 or 2015 (Menze and Geiger, "Object scene flow for autonomous vehicles"), or your own pairs.

    Expected at any depth in a folder or zip archive: frames ``image_2/000000_10.png`` and ``image_2/000000_11.png`` (in
    2012 ``colored_0`` or ``image_0``), and the flow between them, ``flow_occ/000000_10.png``, with 16 bits per channel.
    Frames without flow, such as the test frames, are skipped. A fixed part of the pairs is used for validation.

    Args:
        path: The folder, or the zip archive, which is not extracted.
        flow: Flow to use: occ (all pixels) or noc (non-occluded pixels only).
        val_fraction: Fraction of the pairs for validation; 0: validate on the training pairs.
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
                f"{self.files.path}: no pairs of frames (expected {KITTI_FRAMES[0]}/000000_10.png, "
                f"{KITTI_FRAMES[0]}/000000_11.png and flow_{self.flow}/000000_10.png)"
            )
        train, validation = split_pairs(pairs, self.val_fraction)
        return {"train": FileStore(self.files, train), "validation": FileStore(self.files, validation)}


def find_kitti(files: FileTree, flow: str) -> Iterator[PairNames]:
    """Find the pairs of KITTI among files.

    Args:
        files: the folder or archive.
        flow: "occ" or "noc".

    Raises:
        DataError: If the frames of a flow are missing.
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
                f"{files.shown(name)}: its frames {KITTI_FRAMES[0]}/{scene}{number}.png and {scene}{following}.png are "
                "missing"
            )
