"""Baselines of the synthetic point clouds ``--data=shapes``: nearest neighbours and gradient boosting.

``python -m benchmarks.point_shapes`` prints their test accuracy, which recipes/RESULTS.md compares with that of
``perceiver fit --task=classification --data=shapes``.
"""

from __future__ import annotations

import time

import numpy as np

from perceiver_plugins.arrays import ShapesDataModule

QUANTILES = np.linspace(0, 1, 11)
"""Probabilities of the quantiles of distances and heights that are features. Arbitrary."""


def describe(cloud: np.ndarray) -> np.ndarray:
    """Compute features of a cloud (m, 3) that rotations about the vertical axis do not change.

    Eigenvalues of the covariance, standard deviation of the height, and quantiles of the distance from the centre, from
    the vertical axis and of the height, all relative to the largest distance.

    Returns:
        Features (37,), float64.
    """
    centred = cloud - cloud.mean(axis=0)
    centred = centred / np.linalg.norm(centred, axis=1).max()
    distances = (np.linalg.norm(centred, axis=1), np.linalg.norm(centred[:, :2], axis=1), centred[:, 2])
    quantiles = [np.quantile(distance, QUANTILES) for distance in distances]
    return np.concatenate([np.linalg.eigvalsh(np.cov(centred.T)), [centred[:, 2].std()], *quantiles])


def main() -> None:
    """Fit the baselines on training and validation data, and print their accuracy on the test data."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    splits = ShapesDataModule().data.splits
    features = {split: np.stack(list(map(describe, arrays.arrays))) for split, arrays in splits.items()}
    train = np.concatenate([features["train"], features["validation"]])
    labels = np.concatenate([splits["train"].labels, splits["validation"].labels])
    models = {
        "5 nearest neighbours": make_pipeline(StandardScaler(), KNeighborsClassifier(5)),
        "gradient boosting": HistGradientBoostingClassifier(random_state=0),
    }
    for name, model in models.items():
        start = time.process_time()
        accuracy = model.fit(train, labels).score(features["test"], splits["test"].labels)
        print(f"{name}: accuracy {accuracy:.3f}, {time.process_time() - start:.0f} CPU s")


if __name__ == "__main__":
    main()
