"""Data sets: their rows, split into parts, and the files that a user would have."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import lzma
import wave
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

PARTS = ("tune", "report", "check")
"""Held-out parts. Defaults are chosen on the first, and results are those on the second. Rows of the third are training
rows of all other runs: only runs that are tested on them leave them out."""

SPLIT_SEED = 0
"""Seed of the split: one for all runs, so that no run is tuned on rows of another run's reported part."""

QUICK_ROWS, QUICK_CLASSES = 90, 3
"""Rows and classes of each part with ``--quick``. Arbitrary: enough for validation rows of each class."""


class Row(NamedTuple):
    """A labelled example.

    Attributes:
        key: identity. Rows with equal keys get into the same part, unless a part ends between them.
        content: text, encoded image or recording (bytes), or list of numbers.
        label: class or number.
    """

    key: str
    content: Any
    label: Any


Rows = list[Row]


class Loaded(NamedTuple):
    """Rows of a data set.

    Attributes:
        rows: the labelled rows.
        official: rows of an official held-out split, if there is one; these are reported.
        columns: names of the features of a table.
    """

    rows: Rows
    official: Rows | None = None
    columns: Sequence[str] = ()


@dataclass(frozen=True)
class DataSet:
    """A labelled data set.

    Attributes:
        name: name on the command line.
        title: name in tables.
        kind: "text", "image", "audio" or "table".
        load: reads the rows; its argument is the folder with the files.
        files: paths of the files within the folder of all data sets; empty: nothing is read.
        metric: "accuracy" or "r2".
    """

    name: str
    title: str
    kind: Literal["text", "image", "audio", "table"]
    load: Callable[[Path], Loaded]
    files: tuple[str, ...] = ()
    metric: Literal["accuracy", "r2"] = "accuracy"

    @property
    def flags(self) -> list[str]:
        """The flags of ``perceiver fit`` that select task and data module."""
        if self.kind == "text":
            return ["--task=text-classification", "--data=text-files"]
        if self.kind == "image":
            return ["--task=image-classification", "--data=image-folder"]
        if self.kind == "audio":
            return ["--task=classification", "--model.encoder=audio-spectrogram", "--data=audio-folder"]
        return [f"--task={'regression' if self.metric == 'r2' else 'classification'}", "--data=table-files"]

    @property
    def file_flags(self) -> tuple[str, str]:
        """The flags that name the files to train and to test on."""
        is_folder = self.kind in ("image", "audio")
        return ("--data.path", "--data.path") if is_folder else ("--data.train_files", "--data.test_files")

    def missing(self, folder: Path | None) -> str | None:
        """Return the first file that is not in the folder, or None."""
        return next((name for name in self.files if folder is None or not (folder / name).is_file()), None)


# Splits


def held_out_fraction(num_rows: int) -> float:
    """Return the fraction of the rows in each held-out part: more of a small set, whose results vary more."""
    return 0.2 if num_rows < 1_000 else 0.15 if num_rows < 10_000 else 0.1


def split(loaded: Loaded, quick: bool = False, check: bool = False) -> dict[str, Rows]:
    """Split rows into "train", "tune", "report" and "check", stratified by class.

    The order within a class is that of a hash of seed and key: it depends neither on the order of the rows nor on a
    library's random numbers. An official held-out split is the part "report".

    Args:
        loaded: the rows.
        quick: keep a few rows of a few classes only.
        check: move rows from "train" to "check", which is empty otherwise.
    """
    if quick:
        loaded = _few_classes(loaded)
    fraction = held_out_fraction(len(loaded.rows))
    strata = defaultdict(list)
    for row in loaded.rows:
        strata[None if isinstance(row.label, float) else row.label].append(row)
    parts: dict[str, Rows] = {"train": [], **{part: [] for part in PARTS}}
    drawn = ["tune", *(["report"] if loaded.official is None else []), *(["check"] if check else [])]
    for rows in strata.values():
        rows.sort(key=lambda row: _hash("split", row.key))
        size, start = max(1, round(fraction * len(rows))), 0
        for part in drawn:
            parts[part] += rows[start : start + size]
            start += size
        parts["train"] += rows[start:]
    if loaded.official is not None:
        parts["report"] = list(loaded.official)
    for rows in parts.values():  # another hash: in the order of the split, a part may begin with rows of one class
        rows.sort(key=lambda row: _hash("order", row.key))
    return {part: rows[:QUICK_ROWS] for part, rows in parts.items()} if quick else parts


def _few_classes(loaded: Loaded) -> Loaded:
    if isinstance(loaded.rows[0].label, float):
        return loaded
    classes = sorted({row.label for row in loaded.rows})[:QUICK_CLASSES]
    rows, official = ([row for row in part if row.label in classes] for part in (loaded.rows, loaded.official or []))
    return loaded._replace(rows=rows, official=official or None)


def _hash(purpose: str, key: str) -> bytes:
    return hashlib.sha256(f"{SPLIT_SEED} {purpose} {key}".encode()).digest()


# Files


def write(data_set: DataSet, rows: Rows, columns: Sequence[str], folder: Path, part: str) -> Path:
    """Write the file of a part: .jsonl of texts, .zip of images or recordings, .csv of numbers, and return its path.

    Args:
        data_set: the data set.
        rows: rows of the part.
        columns: names of the features of a table.
        folder: folder of the file.
        part: "train" or "test".
    """
    if data_set.kind == "text":
        path = folder / f"{part}.jsonl"
        lines = (json.dumps({"text": row.content, "label": row.label}, ensure_ascii=False) for row in rows)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    elif data_set.kind in ("image", "audio"):
        path = folder / f"{part}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for row in rows:
                archive.writestr(f"{part}/{row.label}/{row.key.replace('/', '-')}", row.content)
    else:
        path = folder / f"{part}.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*columns, "label"])
            writer.writerows([*row.content, row.label] for row in rows)
    return path


def read(path: Path) -> tuple[list[Any], list[Any]]:
    """Read a file that :func:`write` wrote, and return contents and labels."""
    if path.suffix == ".jsonl":
        with path.open(encoding="utf-8", newline="\n") as file:
            lines = [json.loads(line) for line in file]
        return [line["text"] for line in lines], [line["label"] for line in lines]
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            contents = [_decode(name, archive.read(name)) for name in names]
        return contents, [name.split("/")[1] for name in names]
    with path.open(encoding="utf-8", newline="") as file:
        table = list(csv.reader(file))[1:]
    return [[_cell(value) for value in line[:-1]] for line in table], [line[-1] for line in table]


def _decode(name: str, content: bytes) -> np.ndarray:
    """Decode an image, or a recording of 16 bits to samples from -1 to 1."""
    if name.endswith(".wav"):
        with wave.open(io.BytesIO(content)) as file:
            return np.frombuffer(file.readframes(file.getnframes()), "<i2") / np.float32(2**15)
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(content)))


def _cell(text: str) -> float | str:
    """Convert a cell to a number, NaN if it is empty; others are categories."""
    try:
        return float(text or "nan")
    except ValueError:
        return text


# Readers


def _texts(path: Path) -> Rows:
    with lzma.open(path, "rt", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    return [Row(line["text"], line["text"], line["label"]) for line in lines]


def _text_set(name: str, title: str, file: str, official: str | None = None) -> DataSet:
    def load(folder: Path) -> Loaded:
        return Loaded(_texts(folder / file), _texts(folder / official) if official else None)

    return DataSet(name, title, "text", load, (file, official) if official else (file,))


def _cifar10(folder: Path) -> Loaded:
    with zipfile.ZipFile(folder / "cifar10-jpeg/train-500-per-class.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")]
        return Loaded([Row(name, archive.read(name), name.split("/")[-2]) for name in names])


def _mnist(folder: Path) -> Loaded:
    from PIL import Image

    pixels = np.frombuffer(gzip.decompress((folder / "mnist/train-images-idx3-ubyte.gz").read_bytes())[16:], np.uint8)
    labels = gzip.decompress((folder / "mnist/train-labels-idx1-ubyte.gz").read_bytes())[8:]
    rows = []
    for number, (image, label) in enumerate(zip(pixels.reshape(-1, 28, 28), labels, strict=True)):
        encoded = io.BytesIO()
        Image.fromarray(image).save(encoded, "png", compress_level=1)
        rows.append(Row(f"{number}.png", encoded.getvalue(), str(label)))
    return Loaded(rows)


REPORTED_TAKES = range(5, 10)
"""Takes of the spoken digits that are reported: other takes of the speakers of the training data."""


def _spoken_digits(folder: Path) -> Loaded:
    """Read the Free Spoken Digit Dataset, whose files are DIGIT_SPEAKER_TAKE.wav."""
    rows: dict[bool, Rows] = {True: [], False: []}
    with zipfile.ZipFile(folder / "fsdd/recordings-5-24.zip") as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(".wav"):
                file = name.rpartition("/")[2]
                digit, _, take = file.removesuffix(".wav").split("_")
                rows[int(take) in REPORTED_TAKES].append(Row(file, archive.read(name), digit))
    return Loaded(rows[False], official=rows[True])


def _table(features: Any, labels: Iterable[Any], columns: Sequence[str] = ()) -> Loaded:
    names = columns or [f"x{number}" for number in range(1, features.shape[1] + 1)]
    pairs = zip(features.tolist(), labels, strict=True)
    return Loaded([Row(str(number), values, label) for number, (values, label) in enumerate(pairs)], columns=names)


def _part_of_sklearn(name: str) -> Callable[[Path], Loaded]:
    def load(folder: Path) -> Loaded:
        import sklearn.datasets

        bunch = getattr(sklearn.datasets, f"load_{name}")()
        if "target_names" in bunch:
            labels = [str(bunch.target_names[index]) for index in bunch.target]
        else:
            labels = bunch.target.tolist()
        return _table(bunch.data, labels, list(bunch.feature_names))

    return load


TITANIC_COLUMNS = ("pclass", "sex", "age", "sibsp", "parch", "fare", "embarked")
"""Columns that were known before the voyage, without names, tickets and cabins."""


def _titanic(folder: Path) -> Loaded:
    """Read the passengers of the Titanic (OpenML 40945), which scikit-learn's tests contain."""
    import sklearn.datasets.tests.data.openml as openml

    path = Path(next(iter(openml.__path__))) / "id_40945" / "data-v1-dl-16826755.arff.gz"
    lines = [line for line in gzip.decompress(path.read_bytes()).decode().splitlines() if line.strip()]
    names = [line.split("'")[1] for line in lines if line.lower().startswith("@attribute")]
    start = [line.strip().lower() for line in lines].index("@data") + 1
    rows = []
    for number, values in enumerate(csv.reader(line for line in lines[start:] if not line.startswith("%"))):
        cells = {name: "" if value == "?" else value for name, value in zip(names, values, strict=True)}
        label = "survived" if cells["survived"] == "1" else "died"
        rows.append(Row(str(number), [cells[name] for name in TITANIC_COLUMNS], label))
    return Loaded(rows, columns=TITANIC_COLUMNS)


def _friedman(folder: Path) -> Loaded:
    from sklearn.datasets import make_friedman1

    features, target = make_friedman1(n_samples=20_000, n_features=10, noise=1.0, random_state=0)
    return _table(features, target.tolist())


def _clusters(folder: Path) -> Loaded:
    from sklearn.datasets import make_classification

    features, target = make_classification(
        n_samples=20_000,
        n_features=20,
        n_informative=10,
        n_redundant=4,
        n_classes=4,
        n_clusters_per_class=3,
        flip_y=0.05,
        random_state=0,
    )
    return _table(features, [f"class{label}" for label in target])


_ALL = (
    _text_set("sst2", "SST-2", "sst2/train.jsonl.xz", "sst2/dev.jsonl.xz"),
    _text_set("banking77", "BANKING77", "banking77/train.jsonl.xz"),
    _text_set("clinc150", "CLINC150", "clinc150/train.jsonl.xz", "clinc150/val.jsonl.xz"),
    _text_set("ag-news", "AG news (5,600 rows)", "ag-news-test/first-5600.jsonl.xz"),
    _text_set("sms-spam", "SMS spam", "sms-spam/train.jsonl.xz"),
    _text_set("udhr", "UDHR language identification", "udhr-langid/train.jsonl.xz"),
    _text_set("imdb", "IMDb", "imdb/train.jsonl.xz"),
    DataSet("cifar10", "CIFAR-10 (5,000 JPEG)", "image", _cifar10, ("cifar10-jpeg/train-500-per-class.zip",)),
    DataSet(
        "mnist",
        "MNIST",
        "image",
        _mnist,
        ("mnist/train-images-idx3-ubyte.gz", "mnist/train-labels-idx1-ubyte.gz"),
    ),
    DataSet("spoken-digits", "spoken digits (FSDD)", "audio", _spoken_digits, ("fsdd/recordings-5-24.zip",)),
    DataSet("breast-cancer", "breast cancer", "table", _part_of_sklearn("breast_cancer")),
    DataSet("wine", "wine", "table", _part_of_sklearn("wine")),
    DataSet("diabetes", "diabetes", "table", _part_of_sklearn("diabetes"), metric="r2"),
    DataSet("titanic", "Titanic (numbers and categories)", "table", _titanic),
    DataSet("friedman", "Friedman #1 (generated)", "table", _friedman, metric="r2"),
    DataSet("clusters", "clusters (generated)", "table", _clusters),
)

SETS = {data_set.name: data_set for data_set in _ALL}
"""The data sets by name. The generated tables have more than 10,000 rows: scikit-learn's real ones are downloads."""
