"""The data modules of labelled text."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from perceiver_plugins.sdk.data.files import Row
from perceiver_plugins.sdk.data.prepared_folder import reuse_folder
from perceiver_plugins.text.data.labelled import FACTS, LabelledDocuments, open_documents, prepare_labelled
from perceiver_plugins.text.data.labels import Labels, LabelTarget, make_labels
from perceiver_plugins.text.data.module import DocumentDataModule
from perceiver_registry.errors import UserError


class NoLabelsError(UserError, AttributeError):
    """The target has no such thing as was asked for. An ``AttributeError`` too, for ``hasattr``."""


class LabelledTextDataModule(DocumentDataModule):
    """Text with labels, for one of several targets.

    - ``class``: the class of each document. Labels of batches are (b,) int64.
    - ``number``: one or several numbers for each document. Labels are (b, numbers) float64, NaN where one is missing.
    - ``token``: a class for each token of a document. Labels are (b, m) int64, -100 where nothing is to be predicted.

    An example is a document, of which the first ``max_seq_len`` tokens are used. Documents without a text are left out.

    Subclasses implement :meth:`source_key` and :meth:`load_rows`.

    Args:
        target: What is to be predicted: class, number or token. Not all data has labels for all of them.
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

    # where labels are found, for subclasses to set
    label_column: str | list[str] = "label"
    tokens_column: str | None = None
    val_fraction: float = 0.05
    _label_names: Sequence[str] | None = None

    def __init__(self, target: LabelTarget = "class", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.check_target(target)
        self.target: LabelTarget = target

    @abstractmethod
    def load_rows(self) -> dict[str, Iterable[Row]]:
        """The rows of the splits with their labels, in the columns of :meth:`new_labels`: of ``train`` first, then of
        ``validation`` and ``test``, if there are any.
        """

    def given_label_names(self) -> Sequence[str] | None:
        """The names of the classes, where they are not to be taken from the training data."""
        return self._label_names

    def new_labels(self, label_names: Sequence[str] | None) -> Labels:
        """What reads the labels, if classes have these names, or (None) those that occur.

        Raises:
            UserError: If columns or names do not go with the target.
        """
        return make_labels(self.target, self.text_column, self.label_column, self.tokens_column, label_names)

    # what models and tasks ask

    @property
    def num_classes(self) -> int:
        """target=class or token: number of classes."""
        return len(self.label_names)

    @property
    def label_names(self) -> list[str]:
        """target=class or token: names of the classes, in the order of their numbers."""
        return list(self._fact("label_names"))

    @property
    def class_counts(self) -> list[int]:
        """target=class or token: documents (or tokens) of each class in the training data."""
        return list(self._fact("class_counts"))

    @property
    def num_targets(self) -> int:
        """target=number: how many numbers are to be predicted."""
        return len(self.target_names)

    @property
    def target_names(self) -> list[str]:
        """target=number: names of the numbers, those of their columns."""
        return list(self._fact("target_names"))

    @property
    def target_mean(self) -> list[float]:
        """target=number: mean of each in the training data."""
        return list(self._fact("target_mean"))

    @property
    def target_std(self) -> list[float]:
        """target=number: standard deviation of each in the training data."""
        return list(self._fact("target_std"))

    def _fact(self, name: str) -> Any:
        if name not in self._facts:
            wanted = "number" if name.startswith("target") else "class, or target=token,"
            raise NoLabelsError(
                f"the data has no {name} with target={self.target}: pass target={wanted} if it has labels"
            )
        return self._facts[name]

    @cached_property
    def _facts(self) -> dict[str, Any]:
        self.prepare_data()
        facts: dict[str, Any] = json.loads((self.folder / FACTS).read_text(encoding="utf-8"))
        return facts

    # preparation

    def cache_key(self) -> dict[str, Any]:
        columns = [self.text_column, self.label_column, self.tokens_column]
        return {"target": self.target, "columns": columns, "label_names": self._label_names}

    def prepare_split_files(self) -> None:
        if not reuse_folder(self.folder):
            prepare_labelled(
                self.folder,
                self.load_rows,
                self.new_labels(self.given_label_names()),
                self.encoder,
                self.val_fraction,
                self.preproc_workers,
                self.preproc_batch_size,
                self.known_facts,
            )

    def open_dataset(self, split: str) -> LabelledDocuments:
        prefix, suffix = self.encoder.prefix, self.encoder.suffix
        if len(prefix) + len(suffix) >= self.max_seq_len:
            raise UserError(
                f"max_seq_len={self.max_seq_len}: the {len(prefix) + len(suffix)} special tokens leave no room for text"
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


class ColumnLabelsDataModule(LabelledTextDataModule):
    """Labelled text whose labels are in columns that the user names.

    Args:
        label_column: Name of the column with what is to be predicted: target=class, a text, whole number or boolean;
            target=token, a list of such; target=number, a number, or several columns as a list.
        tokens_column: target=token: name of the column with lists of words, whose labels label_column lists. Words are
            joined by spaces. A word's label goes to each of its bytes or, with another tokenizer, to its first token.
            null: label_column has a label for each character of the text.
        label_names: target=class or token: names for the labels 0, 1, ... of the data, or the order of the labels if
            they are names; null: those that a data set has for them, otherwise the labels of the training data,
            sorted.
    """

    def __init__(
        self,
        label_column: str | list[str] = "label",
        tokens_column: str | None = "tokens",
        label_names: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.label_column = label_column
        self.tokens_column = tokens_column
        self._label_names = label_names
        self.new_labels(label_names)  # what does not go together is an error at once
