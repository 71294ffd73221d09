"""Data modules of files of arrays in a folder for each class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from perceiver_plugins.arrays.data import ArrayDataModule, Arrays, ArraySplits, hold_out, require_equal_widths
from perceiver_plugins.arrays.decoding import SUFFIXES, decode_array
from perceiver_plugins.arrays.rotations import random_rotation
from perceiver_plugins.sdk.data.class_folders import find_class_folders
from perceiver_plugins.sdk.data.file_trees import open_tree
from perceiver_plugins.sdk.data.module import check_positive
from perceiver_plugins.sdk.data.splits import check_fraction
from perceiver_plugins.sdk.data.tree_files import require_files
from perceiver_registry import UserError


class FeatureFolderDataModule(ArrayDataModule):
    """Your own feature vectors: a folder with a folder for each class, or a zip archive of such a folder.

    Each file is an example: an array (vectors, features) in NumPy's format (.npy), or text with one vector per line
    (.txt, .csv, .xyz, .pts). Optional folders ``train``, ``val`` and ``test`` contain the folders of the classes of
    each split. All files are read into memory.

    Args:
        path: The folder, or the zip archive, which is not extracted.
        val_fraction: Fraction of the training data for validation if there is no folder for it.
        max_vectors: Vectors of an input. Larger arrays are sampled: randomly in training, evenly in evaluation. null:
            no limit.
    """

    missing_split: ClassVar[dict[str, str]] = {
        **ArrayDataModule.missing_split,
        "test": "no test data: no folder 'test' with a folder for each class",
    }
    noun: ClassVar[str] = "feature files"

    @classmethod
    def example(cls, folder: Path) -> Mapping[str, Any]:
        rng = np.random.default_rng(0)
        for number in range(8):
            file = folder / ("near" if number % 2 else "far") / f"{number}.npy"
            file.parent.mkdir(exist_ok=True)
            np.save(file, rng.normal(size=(5 + number, 4)).astype(np.float32))
        return {"path": str(folder), "val_fraction": 0.25, "batch_size": 4}

    def __init__(self, path: str, val_fraction: float = 0.1, max_vectors: int | None = None, **kwargs: Any) -> None:
        super().__init__(max_vectors=max_vectors, **kwargs)
        check_fraction(val_fraction)
        self.tree = open_tree(path, "path")
        self.val_fraction = val_fraction

    def load(self) -> ArraySplits:
        names = require_files(self.tree, SUFFIXES, self.noun)
        found = find_class_folders(self.tree, names, self.noun, self.known.get("label_names"))
        splits, locations = {}, []
        for split in found.files:
            files, labels = found.labelled(split)
            shown = [self.tree.shown(name) for name in files]
            arrays = [decode_array(self.tree.read(name), location) for name, location in zip(files, shown, strict=True)]
            splits[split] = Arrays(arrays, np.array(labels))
            locations += shown
        require_equal_widths([array for each in splits.values() for array in each.arrays], locations)
        if "validation" not in splits and "train" in splits:
            splits |= hold_out(splits["train"], self.val_fraction)
        return ArraySplits(found.label_names, splits)


class PointsFolderDataModule(FeatureFolderDataModule):
    """Your own point clouds: a folder with a folder for each class, or a zip archive of such a folder.

    Each file is a cloud: an array (points, coordinates and features) in NumPy's format (.npy), or text with one point
    per line (.xyz, .pts, .txt, .csv). Optional folders ``train``, ``val`` and ``test`` contain the folders of the
    classes of each split. Each cloud is centred, and scaled to the unit sphere. All files are read into memory.

    Args:
        path: The folder, or the zip archive, which is not extracted.
        val_fraction: Fraction of the training data for validation if there is no folder for it.
        max_vectors: Points of an input. Larger clouds are sampled: randomly in training, evenly in evaluation. null: no
            limit.
        num_coordinates: Numbers at the start of a point that are its coordinates. The others are features.
        rotate: Random rotations in training: none, about the last axis (vertical), or in all directions (any).
        jitter: Standard deviation of random translations of each point in training, relative to the largest distance of
            a coordinate from its mean.
    """

    noun = "point clouds"
    unit_sphere = True

    def __init__(
        self,
        path: str,
        val_fraction: float = 0.1,
        max_vectors: int | None = 512,
        num_coordinates: int = 3,
        rotate: Literal["none", "vertical", "any"] = "none",
        jitter: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(path, val_fraction, max_vectors, **kwargs)
        check_positive(num_coordinates=num_coordinates)
        if rotate not in ("none", "vertical", "any"):
            raise UserError(f"rotate={rotate!r} must be 'none', 'vertical' or 'any'")
        if not jitter >= 0:
            raise UserError(f"jitter={jitter} must not be negative")
        self.num_coordinates = num_coordinates
        self.rotate = rotate
        self.jitter = jitter

    def augment(self, array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Rotate a cloud (m, coordinates + features), and move its points."""
        coordinates, features = np.split(array, [self.num_coordinates], axis=1)
        if self.rotate != "none":
            coordinates = coordinates @ random_rotation(rng, self.num_coordinates, self.rotate == "vertical").T
        if self.jitter:
            extent = np.abs(coordinates - coordinates.mean(axis=0)).max()
            coordinates = coordinates + rng.normal(scale=self.jitter * extent, size=coordinates.shape)
        return np.concatenate([coordinates, features], axis=1)
