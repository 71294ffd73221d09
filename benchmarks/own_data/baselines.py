"""Baselines that a practitioner has in a minute: linear models, gradient boosting and a small convolutional network.

Each runs in a process of its own: ``python -m benchmarks.own_data.baselines KIND TRAIN TEST RESULT``.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.own_data.sets import read

CHOOSING_ROWS = 4_000
"""Most training rows of the cross-validation that chooses between words and characters."""

Predict = Callable[[Any], Any]
Labelled = tuple[list[Any], list[Any]]


def text(train: Labelled) -> tuple[Predict, dict[str, Any]]:
    """Linear SVM on TF-IDF: words and pairs, or up to four characters, whichever cross-validation prefers."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    texts, labels = train
    models = {
        "words": make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LinearSVC()),
        "characters": make_pipeline(
            TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4), sublinear_tf=True), LinearSVC()
        ),
    }
    few = texts[:CHOOSING_ROWS], labels[:CHOOSING_ROWS]
    scores = {name: float(cross_val_score(model, *few, cv=3).mean()) for name, model in models.items()}
    features = max(scores, key=lambda name: scores[name])
    return models[features].fit(texts, labels).predict, {"features": features, "cross_validation": scores}


def ridge(train: Labelled) -> tuple[Predict, dict[str, Any]]:
    """Ridge classifier on pixels; the strength is chosen by leave-one-out on the training rows."""
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), RidgeClassifierCV(np.logspace(0, 5, 6)))
    model.fit(_flat(train[0]), train[1])
    return lambda images: model.predict(_flat(images)), {"alpha": float(model[-1].alpha_)}


SEGMENTS, MEL_BANDS, MEL_RATE = 10, 40, 8000
"""Segments of equal length of a recording, mel bands, and sample rate of the baselines of recordings."""


def log_mel_segments(samples: np.ndarray) -> np.ndarray:
    """Return the mean log-mel spectrum of each segment of a recording, standardised over the recording.

    Args:
        samples: (samples,) at :data:`MEL_RATE`.

    Returns:
        (segments x bands,).
    """
    window, hop = MEL_RATE // 40, MEL_RATE // 100
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(samples, (window // 2, window)), window)[::hop]
    energies = np.abs(np.fft.rfft(frames * np.hanning(window), 2 * window)) ** 2
    corners = 700 * (10 ** (np.linspace(0, math.log10(1 + MEL_RATE / 2 / 700), MEL_BANDS + 2)) - 1)
    hertz = np.fft.rfftfreq(2 * window, 1 / MEL_RATE)
    filters = [np.interp(hertz, corners[band : band + 3], [0, 1, 0], 0, 0) for band in range(MEL_BANDS)]
    spectrum = np.log(energies @ np.array(filters).T + 1e-6)
    spectrum = (spectrum - spectrum.mean()) / spectrum.std()
    return np.concatenate([part.mean(axis=0) for part in np.array_split(spectrum, SEGMENTS)])


def _features(recordings: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack([log_mel_segments(samples) for samples in recordings])


def linear_recordings(train: Labelled) -> tuple[Predict, dict[str, Any]]:
    """Logistic regression on the log-mel spectra of ten segments."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000)).fit(_features(train[0]), train[1])
    return lambda recordings: model.predict(_features(recordings)), {}


def kernel_recordings(train: Labelled) -> tuple[Predict, dict[str, Any]]:
    """Support vector machine with an RBF kernel on the same features."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    model = make_pipeline(StandardScaler(), SVC(C=10.0)).fit(_features(train[0]), train[1])
    return lambda recordings: model.predict(_features(recordings)), {}


def _text_columns(rows: Sequence[Sequence[Any]]) -> list[int]:
    return sorted({index for row in rows for index, value in enumerate(row) if isinstance(value, str)})


def _objects(rows: Sequence[Sequence[Any]]) -> np.ndarray:
    """Return rows as an array of objects, in which missing categories are NaN, too."""
    return np.array(rows, dtype=object)


def linear_classes(train: Labelled) -> tuple[Predict, dict[str, Any]]:
    """Logistic regression on standardised columns, and on one indicator per category."""
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    texts = _text_columns(train[0])
    if not texts:
        return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000)).fit(*train).predict, {}
    encode = make_column_transformer(
        (
            make_pipeline(SimpleImputer(strategy="constant", fill_value=""), OneHotEncoder(handle_unknown="ignore")),
            texts,
        ),
        remainder=make_pipeline(SimpleImputer(), StandardScaler()),
    )
    model = make_pipeline(encode, LogisticRegression(max_iter=1_000)).fit(_objects(train[0]), train[1])
    return lambda rows: model.predict(_objects(rows)), {}


def linear_numbers(train: Labelled) -> tuple[Predict, dict[str, Any]]:
    """Ridge regression on standardised columns; the strength is chosen by leave-one-out."""
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 4, 7))).fit(*train).predict, {}


def boosted_classes(train: Labelled) -> tuple[Predict, dict[str, Any]]:
    """Gradient boosting with scikit-learn's defaults."""
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    texts = _text_columns(train[0])
    if not texts:
        return HistGradientBoostingClassifier(random_state=0).fit(*train).predict, {}
    encode = make_column_transformer(
        (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan), texts), remainder="passthrough"
    )
    boosting = HistGradientBoostingClassifier(categorical_features=range(len(texts)), random_state=0)
    model = make_pipeline(encode, boosting).fit(_objects(train[0]), train[1])
    return lambda rows: model.predict(_objects(rows)), {}


def boosted_numbers(train: Labelled) -> tuple[Predict, dict[str, Any]]:
    """Gradient boosting with scikit-learn's defaults."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(random_state=0).fit(*train).predict, {}


def convolutional(train: Labelled, seconds: float, seed: int) -> tuple[Predict, dict[str, Any]]:
    """Plain convolutional network of 141 thousand parameters, trained with flips and shifts.

    Args:
        train: RGB images of one size, and their classes.
        seconds: CPU seconds of training.
        seed: seed of weights, order and augmentation.
    """
    import torch
    from torch import nn
    from torch.nn.functional import cross_entropy

    torch.manual_seed(seed)
    names = sorted(set(train[1]))
    images, labels = _tensor(train[0]), torch.tensor([names.index(label) for label in train[1]])
    layers: list[nn.Module] = []
    for before, after, pooled in ((3, 32, False), (32, 32, True), (32, 64, False), (64, 64, True), (64, 128, False)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if pooled else []
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, len(names)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    steps, start = 0, time.process_time()
    order = torch.randperm(len(images))
    while (share := (time.process_time() - start) / seconds) < 1:
        if len(order) < 2:
            order = torch.randperm(len(images))
        chosen, order = order[:64], order[64:]
        batch = shifted(images[chosen], 4)
        batch = torch.where(torch.rand(len(batch), 1, 1, 1) < 0.5, batch.flip(-1), batch)
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(share / 0.1, (1 + math.cos(math.pi * share)) / 2)
        optimizer.zero_grad()
        cross_entropy(model(batch), labels[chosen], label_smoothing=0.1).backward()
        optimizer.step()
        steps += 1

    @torch.no_grad()
    def predict(contents: Any) -> list[str]:
        model.eval()
        return [names[int(index)] for part in _tensor(contents).split(256) for index in model(part).argmax(-1)]

    size = sum(parameter.numel() for parameter in model.parameters())
    return predict, {"parameters": size, "steps": steps, "budget": seconds}


def shifted(images: Any, largest: int) -> Any:
    """Translate each image by random numbers of pixels; the border is filled with zeros.

    Args:
        images: (b, channels, height, width).
        largest: largest number of pixels, in each direction.
    """
    import torch
    from torch.nn.functional import pad

    b, channels, height, width = images.shape
    rows = torch.randint(2 * largest + 1, (b, 1)) + torch.arange(height)
    columns = torch.randint(2 * largest + 1, (b, 1)) + torch.arange(width)
    example, channel = torch.arange(b)[:, None, None, None], torch.arange(channels)[:, None, None]
    return pad(images, (largest,) * 4)[example, channel, rows[:, None, :, None], columns[:, None, None, :]]


def _flat(images: Sequence[Any]) -> Any:
    return np.stack(images).reshape(len(images), -1).astype(np.float32) / 255


def _tensor(images: Sequence[Any]) -> Any:
    import torch

    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


BASELINES: dict[str, dict[str, Callable[[Labelled], tuple[Predict, dict[str, Any]]]]] = {
    "text": {"TF-IDF, linear SVM": text},
    "image": {"ridge on pixels": ridge},
    "audio": {"log-mel segments, logistic regression": linear_recordings, "log-mel segments, SVM": kernel_recordings},
    "classes": {"logistic regression": linear_classes, "gradient boosting": boosted_classes},
    "numbers": {"ridge regression": linear_numbers, "gradient boosting": boosted_numbers},
}
"""Baselines by kind of data."""

CONVOLUTIONAL = "small CNN, equal CPU seconds"


def scores(truth: Sequence[Any], predicted: Sequence[Any], metric: str) -> dict[str, float]:
    """Return accuracy and macro F1, or R2."""
    from sklearn.metrics import accuracy_score, f1_score, r2_score

    if metric == "r2":
        return {"r2": float(r2_score(truth, predicted))}
    return {
        "accuracy": float(accuracy_score(truth, predicted)),
        "f1": float(f1_score(truth, predicted, average="macro")),
    }


def measure(kind: str, train: Path, test: Path, seconds: float | None = None, seed: int = 0) -> list[dict[str, Any]]:
    """Fit and test baselines in this process.

    Args:
        kind: "text", "image", "audio", "classes" or "numbers".
        train: file to fit on.
        test: file to test on.
        seconds: CPU seconds of the convolutional network's training; None: the other baselines.
        seed: seed of the network.

    Returns:
        For each baseline ``name``, ``metrics``, ``cpu_seconds`` (choosing, fitting and testing, without imports and
        reading) and facts.
    """
    import sklearn.metrics  # noqa: F401  (imported before the clock starts)

    parts = []
    for path in (train, test):
        contents, labels = read(path)
        parts.append((contents, [float(label) for label in labels] if kind == "numbers" else labels))
    chosen: dict[str, Any] = BASELINES[kind]
    if seconds is not None:
        chosen = {CONVOLUTIONAL: lambda labelled: convolutional(labelled, seconds, seed)}
    results = []
    for name, fit in chosen.items():
        start = time.process_time()
        predict, facts = fit(parts[0])
        metrics = scores(parts[1][1], list(predict(parts[1][0])), "r2" if kind == "numbers" else "accuracy")
        results.append({"name": name, "metrics": metrics, "cpu_seconds": time.process_time() - start, **facts})
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=BASELINES)
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--seconds", type=float, help="train the convolutional network for so many CPU seconds")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    chosen.result.write_text(json.dumps(measure(chosen.kind, chosen.train, chosen.test, chosen.seconds, chosen.seed)))


if __name__ == "__main__":
    main()
