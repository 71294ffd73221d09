"""Data module of feature vectors in the columns of tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pytorch_lightning.utilities import rank_zero_warn

from perceiver_plugins.arrays.data import ArrayDataModule, Arrays, ArraySplits, hold_out, require_equal_widths
from perceiver_plugins.arrays.decoding import as_vectors
from perceiver_plugins.sdk.data.files import find_split_files, read_rows
from perceiver_plugins.sdk.data.multi_labels import SingleLabels
from perceiver_plugins.sdk.data.splits import check_fraction
from perceiver_plugins.sdk.errors import DataError


class FeatureFilesDataModule(ArrayDataModule):
    """Your own feature vectors in tables: .parquet, .jsonl and .json files, also compressed.

    Each row is an example, with a column of lists of vectors (``[[0.1, 0.2], [0.3, 0.4]]``), or of one vector, and a
    column with its class.

    Args:
        train_files: Files to train on: a file, a folder, a pattern, or a list of these; null: only evaluate a trained
            model.
        val_files: Files to validate on; null: hold out some rows of the training data.
        test_files: Files to test on.
        features_column: Name of the column with the vectors.
        label_column: Name of the column with the class.
        val_fraction: Fraction of the rows to hold out for validation.
        max_vectors: Vectors of an input. Larger arrays are sampled: randomly in training, evenly in evaluation. null:
            no limit.
    """

    missing_split: ClassVar[dict[str, str]] = {
        "train": "train_files: no rows",
        "validation": "no rows for validation (name files with val_files, or raise val_fraction)",
        "test": "no test data (name files with test_files)",
    }

    @classmethod
    def example(cls, folder: Path) -> Mapping[str, Any]:
        rows = [f'{{"features": [[{number}, 0.5], [1, {number % 3}]], "label": {number % 2}}}' for number in range(12)]
        file = folder / "features.jsonl"
        file.write_text("\n".join(rows), encoding="utf-8")
        return {"train_files": str(file), "batch_size": 4}

    def __init__(
        self,
        train_files: str | list[str] | None = None,
        val_files: str | list[str] | None = None,
        test_files: str | list[str] | None = None,
        features_column: str = "features",
        label_column: str = "label",
        val_fraction: float = 0.1,
        max_vectors: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(max_vectors=max_vectors, **kwargs)
        check_fraction(val_fraction)
        self.features_column = features_column
        self.label_column = label_column
        self.val_fraction = val_fraction
        self.files = find_split_files(train_files, val_files, test_files)

    def load(self) -> ArraySplits:
        if "train" not in self.files and not self.known:
            raise DataError("train_files: missing (name files to train on)")
        classes = SingleLabels(self.label_column)
        if "train" not in self.files:
            classes.recall(self.known["label_names"])
        splits: dict[str, Arrays] = {}
        all_arrays: list[np.ndarray] = []
        locations: list[str] = []
        for split, files in self.files.items():
            arrays, labels, found = self._read(files, classes)
            if split == "train" and labels:
                classes.settle()
            splits[split] = Arrays(arrays, classes.encode(labels))
            all_arrays, locations = all_arrays + arrays, locations + found
            for warning in classes.notes(splits[split].labels, split):
                rank_zero_warn(warning)
        require_equal_widths(all_arrays, locations)
        if "validation" not in splits and "train" in splits:
            splits |= hold_out(splits["train"], self.val_fraction)
        return ArraySplits(classes.names, splits)

    def _read(self, files: Sequence[Path], classes: SingleLabels) -> tuple[list[np.ndarray], list[str], list[str]]:
        """Read arrays, names of classes, and locations of the rows of files."""
        columns = {self.features_column: "features_column", self.label_column: "label_column"}
        arrays, labels, locations = [], [], []
        for file in files:
            for location, row in read_rows(file, columns):
                arrays.append(as_vectors(row[self.features_column], f"{location}: {self.features_column!r}"))
                labels.append(classes.read(row, location))
                locations.append(location)
        if not arrays:
            raise DataError(f"{files[0]}: no rows")
        return arrays, labels, locations

    def description(self) -> dict[str, Any]:
        """Describe the data for prediction, as plain data that is stored in checkpoints."""
        return super().description() | {"features_column": self.features_column}
