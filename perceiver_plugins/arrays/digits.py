"""Rows of handwritten digits as sequences of feature vectors."""

from __future__ import annotations

import numpy as np

from perceiver_plugins.arrays.data import ArrayDataModule, Arrays, ArraySplits
from perceiver_plugins.sdk.data.splits import stratified_split


class DigitRowsDataModule(ArrayDataModule):
    """Handwritten digits of scikit-learn (UCI, Alpaydin and Kaynak) as sequences: a feature vector for each of 8 rows.

    Nothing is downloaded. The splits of the 1,797 digits are fixed: 70 % of each class for training, 15 % for
    validation, 15 % for test.
    """

    def load(self) -> ArraySplits:
        from sklearn.datasets import load_digits  # takes a second

        digits = load_digits()
        whole = Arrays(list(digits.images.astype(np.float32)), digits.target.astype(np.int64))
        parts = stratified_split(whole.labels, 0.15, 0.15, round_sums=True)
        splits = {split: whole.take(part) for split, part in zip(("train", "validation", "test"), parts, strict=True)}
        return ArraySplits([str(name) for name in digits.target_names], splits)
