"""Base data modules for labelled text."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from perceiver_plugins.sdk.data.files import Piece, Row
from perceiver_plugins.sdk.data.multi_labels import has_lists
from perceiver_plugins.sdk.data.prepared_folder import reuse_folder
from perceiver_plugins.text.data.labelled import (
    LABEL_FACTS,
    LabelledDocuments,
    load_labelled,
    open_documents,
    prepare_labelled,
)
from perceiver_plugins.text.data.labels import Labels, LabelTarget, make_labels
from perceiver_plugins.text.data.module import DocumentDataModule
from perceiver_plugins.text.data.prepared import quiet_datasets
from perceiver_plugins.text.data.reports import describe_cut_texts, describe_unknown_texts
from perceiver_registry.errors import UserError


class NoLabelsError(UserError, AttributeError):
    """Access to a property that the target does not have. Also an ``AttributeError``, for ``hasattr``."""


class LabelledTextDataModule(DocumentDataModule):
    """Base class of data modules of labelled text, for one of several targets.

    - ``class``: a class per document. Labels of batches are (b,) int64. Documents with any number of classes have
      (b, classes) float32: 0, 1, or NaN where unknown.
    - ``number``: one or several numbers per document. Labels are (b, targets) float64, NaN where missing.
    - ``token``: a class per token. Labels are (b, m) int64, -100 where ignored.

    An example is a document, cut to ``max_seq_len`` tokens. Documents without text are left out.

    Subclasses implement :meth:`source_key` and :meth:`load_rows`.

    Args:
        target: Kind of labels: class, number or token. Not all data has labels of all kinds.
    """

    targets: ClassVar[tuple[str, ...]] = ("class", "number", "token")
    unused_options: ClassVar[Mapping[str, Any]] = {
        "mask_prob": 0.15,
        "mask_words": True,
        "static_masking": False,
        "streaming": False,
        "shuffle_buffer": 1000,
        "stream_val_docs": 1000,
    }

    # columns of the labels, for subclasses to set
    label_column: str | list[str] = "label"
    tokens_column: str | None = None
    label_separator: str | None = None
    val_fraction: float = 0.05
    _label_names: Sequence[str] | None = None

    def __init__(self, target: LabelTarget = "class", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.check_target(target)
        self.target: LabelTarget = target

    @abstractmethod
    def load_rows(self) -> dict[str, Iterable[Row]]:
        """Return the rows of ``train``, ``validation`` and ``test``, in this order, with the columns of
        :meth:`new_labels`. Splits may be absent.
        """

    def given_label_names(self) -> Sequence[str] | None:
        """Return the names of the classes; None: the names in the training data."""
        return self._label_names

    def new_labels(self, label_names: Sequence[str] | None, has_lists: bool = False) -> Labels:
        """Create the parser of labels.

        Args:
            label_names: Names of the classes; None: the names in the training data.
            has_lists: The label column has lists of classes.

        Raises:
            UserError: If columns or names do not fit the target.
        """
        return make_labels(
            self.target,
            self.text_column,
            self.label_column,
            self.tokens_column,
            label_names,
            self.label_separator,
            has_lists,
        )

    def labels_of_data(self) -> Labels:
        """Create the parser of the labels of this data."""
        return self.new_labels(self.given_label_names(), self.target == "class" and self.has_label_lists())

    def has_label_lists(self) -> bool:
        """Return whether the label column has lists of classes. May read rows."""
        return False

    # properties for models and tasks

    @property
    def num_classes(self) -> int:
        """target=class or token: number of classes."""
        return len(self.label_names)

    @property
    def label_names(self) -> list[str]:
        """target=class or token: names of the classes, by class index."""
        return list(self._fact("label_names"))

    @property
    def class_counts(self) -> list[int]:
        """target=class or token: number of documents (or tokens) of each class in the training data."""
        return list(self._fact("class_counts"))

    @property
    def multi_label(self) -> bool | None:  # type: ignore[override]
        """target=class: documents have any number of classes."""
        return self.target == "class" and bool(self._facts.get("multi_label", False))

    @property
    def num_targets(self) -> int:
        """target=number: number of targets."""
        return len(self.target_names)

    @property
    def target_names(self) -> list[str]:
        """target=number: names of the targets, which are the names of their columns."""
        return list(self._fact("target_names"))

    @property
    def target_mean(self) -> list[float]:
        """target=number: mean of each target in the training data."""
        return list(self._fact("target_mean"))

    @property
    def target_std(self) -> list[float]:
        """target=number: standard deviation of each target in the training data."""
        return list(self._fact("target_std"))

    @property
    def num_train_examples(self) -> int | None:
        """Number of training texts; None: there is no training data."""
        return len(self._train_lengths) or None

    @property
    def mean_train_length(self) -> float | None:
        """Mean number of tokens of the training texts, each cut to max_seq_len; None: there is no training data."""
        lengths = self._train_lengths
        return float(np.minimum(lengths, self.max_seq_len).mean()) if len(lengths) else None

    @cached_property
    def _train_lengths(self) -> np.ndarray:
        """Number of tokens of each training text, (texts,)."""
        self.prepare_data()
        return np.diff(open_documents(self.folder, "train").starts)

    def _fact(self, name: str) -> Any:
        if name not in self._facts:
            wanted = "number" if name.startswith("target") else "class or target=token"
            raise NoLabelsError(f"target={self.target}: the data has no {name} (pass target={wanted})")
        return self._facts[name]

    @cached_property
    def _facts(self) -> dict[str, Any]:
        self.prepare_data()
        facts: dict[str, Any] = json.loads((self.folder / LABEL_FACTS).read_text(encoding="utf-8"))
        return facts

    # preparation

    def cache_key(self) -> dict[str, Any]:
        columns = [self.text_column, self.label_column, self.tokens_column]
        separator = {} if self.label_separator is None else {"label_separator": self.label_separator}
        return {"target": self.target, "columns": columns, "label_names": self._label_names, **separator}

    def prepare_split_files(self) -> None:
        if not reuse_folder(self.folder):
            prepare_labelled(
                self.folder,
                self.load_rows,
                self.labels_of_data(),
                self.encoder,
                self.val_fraction,
                self.preproc_workers,
                self.preproc_batch_size,
                self.known_facts,
            )

    def training_documents(self, work: Path) -> Iterable[Piece]:
        with quiet_datasets():
            splits = self.load_rows()
            train = {split: rows for split, rows in splits.items() if split == "train"}
            fraction = None if "validation" in splits else self.val_fraction
            labels = self.labels_of_data()
            documents, _ = load_labelled(work, train, labels, fraction, self.known_facts)
            return self._training_sample(documents.get("train"))

    def open_dataset(self, split: str) -> LabelledDocuments:
        prefix, suffix = self.encoder.prefix, self.encoder.suffix
        if len(prefix) + len(suffix) >= self.max_seq_len:
            raise UserError(
                f"max_seq_len={self.max_seq_len}: must be greater than {len(prefix) + len(suffix)}, the number of "
                "special tokens around a text"
            )
        return LabelledDocuments(
            open_documents(self.folder, split),
            self.collator,
            self.max_seq_len,
            prefix,
            suffix,
            self.truncation_side,
            self.random_min_seq_len,
            self.seed,
            shift=self.random_train_shift and split == "train",
            truncate=self.random_train_truncation and split == "train",
        )

    def reports(self, splits: Mapping[str, LabelledDocuments]) -> Iterable[str]:
        return [describe_cut_texts(splits), describe_unknown_texts(splits, self.tokenizer)]


class ColumnLabelsDataModule(LabelledTextDataModule):
    """Base class of data modules whose labels are in columns named by the user.

    Args:
        label_column: Name of the label column, or a list of names. target=class: text, whole numbers or booleans; for
            texts with any number of classes, lists of these, or several columns of 0 and 1, one for each class.
            target=token: lists of classes. target=number: numbers, in one column or several.
        tokens_column: target=token: name of the column with lists of words, whose labels label_column lists. Words are
            joined by spaces. Each byte of a word has its label or, with other tokenizers, its first token has.
            null: label_column lists a label for each character of the text.
        label_names: target=class or token: names for the labels 0, 1, ... of the data, or the order of labels that are
            names; null: the names in the data set's metadata, otherwise the labels of the training data, sorted.
        label_separator: target=class: separator of the classes in the label column, such as ',', for texts with any
            number of classes. null: a class, or a list of classes.
    """

    def __init__(
        self,
        label_column: str | list[str] = "label",
        tokens_column: str | None = "tokens",
        label_names: list[str] | None = None,
        label_separator: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.label_column = label_column
        self.tokens_column = tokens_column
        self._label_names = label_names
        self.label_separator = label_separator
        self.new_labels(label_names)  # report invalid combinations now

    def has_label_lists(self) -> bool:
        if not isinstance(self.label_column, str) or self.label_separator is not None:
            return False
        splits = self.load_rows()
        return has_lists(next(iter(splits.values())), self.label_column)
