"""Images of the Hugging Face hub or of local folders in its layout."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import datasets
import timm.data
import torch
from PIL import Image
from pytorch_lightning.utilities import rank_zero_warn

from perceiver_plugins.image.data.decoding import open_image
from perceiver_plugins.image.data.folders import SKIP_HINT, existing_path, load_class_folders
from perceiver_plugins.image.data.module import ImageDataModule
from perceiver_plugins.image.data.sources import ImageSplits, ImageStore, LabelledImages, split_for_validation
from perceiver_plugins.sdk.data.multi_labels import MultiLabels, declares_multi_label
from perceiver_plugins.sdk.data.splits import check_fraction
from perceiver_plugins.sdk.errors import DataError, one_line
from perceiver_plugins.sdk.hub import hub
from perceiver_registry.errors import surface_own_fault


class HubImagesDataModule(ImageDataModule):
    """Any image data set of the Hugging Face hub or in a local folder.

    A local folder contains a data set saved by ``save_to_disk``, or files in the layout of the hub, such as
    ``data/train-00000-of-00001.parquet``.

    Args:
        dataset: Hub id or local folder.
        subset: Configuration of the data set, if it has several.
        train_split: Split for training; several are joined by ``+``.
        val_split: Split for validation; null: ``validation`` if it exists, otherwise a fixed part of each class of the
            training data.
        test_split: Split for testing; null: ``test``, if it exists and has labels.
        val_fraction: Fraction of the training data for validation if there is no split for it.
        image_column: Name of the column with the images; null: the only column of images.
        label_column: Name of the column with the classes: class labels, integers or names. For images with any number
            of classes, a column of lists of these, or a list of several columns of 0 and 1, one for each class.
        revision: Branch, tag or commit on the hub.
        skip_unreadable: Leave out images that cannot be read, instead of ending with an error. All images are read
            once before training to find them.
        label_separator: Separator of the classes in the label column, such as ',', for images with any number of
            classes. null: a class, or a list of classes.
    """

    missing_split: ClassVar[dict[str, str]] = {
        **ImageDataModule.missing_split,
        "test": "no test data: no split 'test' with labels (set test_split to use another)",
    }
    augmented_by_default = True

    def __init__(
        self,
        dataset: str,
        subset: str | None = None,
        train_split: str = "train",
        val_split: str | None = None,
        test_split: str | None = None,
        val_fraction: float = 0.1,
        image_column: str | None = None,
        label_column: str | list[str] = "label",
        revision: str | None = None,
        skip_unreadable: bool = False,
        label_separator: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_fraction(val_fraction)
        self.dataset = dataset
        self.subset = subset
        self.train_split = train_split
        self.val_split = val_split
        self.test_split = test_split
        self.val_fraction = val_fraction
        self.image_column = image_column
        self.label_columns = [label_column] if isinstance(label_column, str) else list(label_column)
        self.label_separator = label_separator
        if len(self.label_columns) != 1 or label_separator is not None:
            MultiLabels(self.label_columns, label_separator)  # report invalid combinations now
        self.revision = revision
        self.skip_unreadable = skip_unreadable
        if self.folder is not None and not self.folder.is_dir():
            raise DataError(f"dataset={dataset}: not a folder (give a hub id, or a folder with the data set's files)")

    @cached_property
    def folder(self) -> Path | None:
        """The local folder; None for a hub id."""
        if self.dataset.startswith((".", "/", "~")):
            return existing_path(self.dataset, "dataset")
        path = Path(self.dataset)
        return path if path.exists() else None

    @property
    def source(self) -> str:
        return self.dataset

    def load(self) -> ImageSplits:
        tables = {"train": self._load_split(self.train_split)}
        for split, name in (("validation", self.val_split), ("test", self.test_split)):
            if name or split in self._split_names:
                tables[split] = self._load_split(name or split)
        columns = {split: self._labels(table) for split, table in tables.items()}
        if self.test_split is None and all(label in (-1, None) for label in columns.get("test", [()])[0]):
            columns.pop("test", None)  # labels that a benchmark keeps secret
        label_names, labels = self._read_classes(tables, columns)
        images = {}
        for split in columns:
            table, image_column = self._images(tables[split])
            store = TableStore(table, image_column, f"{self.dataset}, split {split!r}")
            images[split] = LabelledImages(store, torch.arange(len(labels[split])), labels[split])
        if "validation" not in images:
            images |= split_for_validation(images["train"], self.val_fraction)
        return ImageSplits(label_names, images)

    # splits

    @cached_property
    def _saved(self) -> dict[str, datasets.Dataset] | None:
        """The splits of a data set that ``save_to_disk`` wrote."""
        folder = self.folder
        if folder is None or not any((folder / name).exists() for name in ("dataset_dict.json", "state.json")):
            return None
        try:
            loaded = datasets.load_from_disk(str(folder))
        except Exception as error:  # missing or damaged files
            surface_own_fault(error)
            raise DataError(f"{folder}: the saved data set cannot be read ({one_line(error)})") from error
        return dict(loaded) if isinstance(loaded, dict) else {"train": loaded}

    @cached_property
    def _split_names(self) -> list[str]:
        if self._saved is not None:
            return list(self._saved)
        try:
            with hub():
                return datasets.get_dataset_split_names(self.dataset, self.subset, revision=self.revision)
        except Exception as error:
            surface_own_fault(error)
            raise self._failed(error) from error

    def _load_split(self, split: str) -> datasets.Dataset:
        parts = [part.strip() for part in split.split("+")]
        for part in parts:
            if part not in self._split_names:
                raise DataError(f"{self.dataset}: no split {part!r}; known: {', '.join(self._split_names)}")
        if self._saved is not None:
            return datasets.concatenate_datasets([self._saved[part] for part in parts])
        try:
            with hub():
                return datasets.load_dataset(self.dataset, self.subset, split="+".join(parts), revision=self.revision)
        # No network, no such data set, subset or revision, or an empty split: the flags are wrong in all cases.
        except Exception as error:
            surface_own_fault(error)
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> DataError:
        what = f"{self.dataset!r}" + (f", subset {self.subset!r}" if self.subset else "")
        if self.folder is not None:
            return DataError(f"data set {what} could not be loaded from the folder ({one_line(error)})")
        return DataError(
            f"data set {what} could not be loaded from the Hugging Face hub ({one_line(error)}); "
            "a local folder with its files works as well"
        )

    # columns

    def _images(self, table: datasets.Dataset) -> tuple[datasets.Dataset, str]:
        """Return a table of the column of images, which are not decoded, and the column's name."""
        name = self.image_column
        if name is None:
            found = [key for key, feature in table.features.items() if isinstance(feature, datasets.Image)]
            name = found[0] if len(found) == 1 else "image"
        if name not in table.column_names:
            raise DataError(
                f"{self.dataset}: no column {name!r} with images; image_column must be one of: "
                f"{', '.join(table.column_names)}"
            )
        try:
            return table.select_columns([name]).cast_column(name, datasets.Image(decode=False)), name
        except Exception as error:  # a column of another type
            surface_own_fault(error)
            raise DataError(
                f"{self.dataset}: the column {name!r} does not contain images ({one_line(error)})"
            ) from error

    def _labels(self, table: datasets.Dataset) -> list[list[Any]]:
        """Return the values of each label column."""
        for column in self.label_columns:
            if column not in table.column_names:
                raise DataError(
                    f"{self.dataset}: no column {column!r} with classes; label_column must be one of: "
                    f"{', '.join(table.column_names)}"
                )
        return [table.with_format(None)[column][:] for column in self.label_columns]

    def _read_classes(
        self, tables: Mapping[str, datasets.Dataset], columns: Mapping[str, list[list[Any]]]
    ) -> tuple[list[str], dict[str, torch.Tensor]]:
        """Return the names of the classes, and the labels of each split.

        Args:
            tables: the table of each split, "train" first.
            columns: the values of each label column, by split.
        """
        reader = self._multi_label_reader(tables["train"])
        if reader is not None:
            labels = self._encode_multi_labels(reader, columns)
            return reader.names, labels
        label_names = self._label_names(tables["train"], columns["train"][0])
        return label_names, {
            split: self._label_indices(tables[split], split, values[0], label_names)
            for split, values in columns.items()
        }

    def _multi_label_reader(self, table: datasets.Dataset) -> MultiLabels | None:
        """Create the reader of multi-label images. None: images have one class."""
        items = list_items(table.features[self.label_columns[0]])
        if items is None and not declares_multi_label(self.label_columns, self.label_separator):
            return None
        names = list(items.names) if isinstance(items, datasets.ClassLabel) else None
        return MultiLabels(self.label_columns, self.label_separator, names)

    def _encode_multi_labels(
        self, classes: MultiLabels, columns: Mapping[str, list[list[Any]]]
    ) -> dict[str, torch.Tensor]:
        """Return the labels (n, classes) of each split."""
        labels = {}
        for split, values in columns.items():
            rows = (dict(zip(self.label_columns, row, strict=True)) for row in zip(*values, strict=True))
            where = f"{self.dataset}, split {split!r}"
            read = [classes.read(row, f"{where}, row {number}") for number, row in enumerate(rows)]
            if split == "train":
                classes.settle()
            encoded = classes.encode(read)
            for note in classes.notes(encoded, split):
                rank_zero_warn(f"{self.dataset}: {note}")
            labels[split] = torch.from_numpy(encoded)
        return labels

    def _label_names(self, table: datasets.Dataset, column: Sequence[Any]) -> list[str]:
        feature = table.features[self.label_columns[0]]
        if isinstance(feature, datasets.ClassLabel):
            return list(feature.names)
        found = {label for label in column if isinstance(label, str | int)}
        return [str(label) for label in sorted(found)]

    def _label_indices(
        self, table: datasets.Dataset, split: str, column: Sequence[Any], label_names: list[str]
    ) -> torch.Tensor:
        """Return the class indices (n,) int64 of a split."""
        is_index = isinstance(table.features[self.label_columns[0]], datasets.ClassLabel)
        by_label: dict[Any, int] = {(index if is_index else name): index for index, name in enumerate(label_names)}
        indices = []
        for row, label in enumerate(column):
            is_negative = isinstance(label, int) and label < 0
            key = label if is_index else str(label) if isinstance(label, str | int) and not is_negative else None
            if key not in by_label:
                some = ", ".join(label_names[:5]) + (", ..." if len(label_names) > 5 else "")
                raise DataError(
                    f"{self.dataset}, split {split!r}, row {row}: the label {label!r} is not one of the "
                    f"{len(label_names)} classes ({some})"
                )
            indices.append(by_label[key])
        return torch.tensor(indices)


def list_items(feature: Any) -> Any:
    """Return the feature type of a list column's items; None for other columns."""
    if isinstance(feature, list):
        return feature[0]
    return getattr(feature, "feature", None)


class TableStore(ImageStore):
    """Images in a data set of the library ``datasets``.

    Args:
        table: the data set, whose images are not decoded.
        column: name of the column of images.
        name: name of the data set in messages.
    """

    hint = SKIP_HINT

    def __init__(self, table: datasets.Dataset, column: str, name: str) -> None:
        self.table = table
        self.column = column
        self.name = name

    def open(self, number: int) -> Image.Image:
        image = self.table[number][self.column]
        if image is None:
            raise ValueError("it is missing")
        return open_image(image["path"] if image["bytes"] is None else io.BytesIO(image["bytes"]))

    def location(self, number: int) -> str:
        return f"{self.name}, row {number}"


class ImageNetDataModule(HubImagesDataModule):
    """ImageNet: 1,281,167 training images of 1,000 classes, 50,000 for validation; the test images have no labels.

    The hub requires agreement to its terms. A local folder may have the usual layout, with a folder for each class:
    ``train/n01440764/*.JPEG`` and ``val/n01440764/*.JPEG``.

    Args:
        dataset: Hub id or local folder.
        hflip: Probability of mirroring a training image.
    """

    default_image_size = (224, 224)
    default_min_crop = 0.08
    missing_split: ClassVar[dict[str, str]] = {
        **HubImagesDataModule.missing_split,
        "test": "no test data: the labels of ImageNet's test images are not public",
    }

    def __init__(self, dataset: str = "ILSVRC/imagenet-1k", hflip: float = 0.5, **kwargs: Any) -> None:
        super().__init__(dataset=dataset, hflip=hflip, **kwargs)

    def load(self) -> ImageSplits:
        train = self.folder and self.folder / "train"
        if train is None or not (train.is_dir() and any(child.is_dir() for child in train.iterdir())):
            return super().load()
        assert self.folder is not None
        splits = load_class_folders(self.folder, self.val_fraction)
        imagenet = timm.data.ImageNetInfo()
        known = set(imagenet.label_names())
        # Folders have WordNet ids as names; sorted by these, the classes have the usual labels.
        label_names = [
            imagenet.label_name_to_description(name) if name in known else name for name in splits.label_names
        ]
        return ImageSplits(label_names, splits.images)
