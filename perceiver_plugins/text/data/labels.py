"""Labels of texts: parsed from table rows, validated and encoded as numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, ClassVar, Literal

import datasets
import numpy as np
import pyarrow as pa

from perceiver_plugins.sdk.data.cells import kind_of, number, text_of
from perceiver_plugins.sdk.data.class_names import ClassNames
from perceiver_plugins.sdk.data.loading import IGNORED
from perceiver_plugins.sdk.data.multi_labels import MultiLabels, declares_multi_label
from perceiver_plugins.sdk.data.statistics import mean_and_std, missing_targets, refuse_constant
from perceiver_plugins.sdk.errors import DataError
from perceiver_plugins.text.data.encoding import DocumentEncoder
from perceiver_registry.errors import UserError

LabelTarget = Literal["class", "number", "token"]
"""Kind of labels of a text: a class, numbers, or a class per token."""

Run = tuple[str | None, int]
"""Name of a class (None: ignored), and the number of consecutive characters that have it."""


class Labels(ABC):
    """Parser and encoder of labelled texts.

    Call :meth:`read` for all rows of the training data, then :meth:`learn`, then :meth:`read` for the other splits.
    After that, :meth:`encode` can be called, also in other processes.

    Args:
        columns: Required columns, each mapped to the flag that names it.
    """

    stored: pa.DataType
    """Arrow type of the labels that :meth:`read` returns."""

    feature: ClassVar[Any]
    """Feature of ``datasets`` for the encoded labels of a document."""

    by_token: ClassVar[bool] = False
    """True if each token has a label."""

    def __init__(self, columns: Mapping[str, str]) -> None:
        self.columns = columns

    @abstractmethod
    def read(self, row: Mapping[str, Any], location: str) -> tuple[str, Any]:
        """Parse the text and the labels of a row. The labels of an empty text are ignored.

        Args:
            row: Values by column.
            location: File and line of the row, for errors.

        Raises:
            DataError: If a value is missing or invalid.
        """

    @abstractmethod
    def learn(self) -> None:
        """Determine the facts about the training data, such as class names, after reading all of it.

        Raises:
            DataError: If a model cannot be trained on the labels, for example with a single class.
        """

    @abstractmethod
    def recall(self, facts: Mapping[str, Any]) -> None:
        """Restore the facts about the training data from a trained model.

        Args:
            facts: Output of :meth:`facts`, as stored with the model.
        """

    @abstractmethod
    def encode(self, encoder: DocumentEncoder, texts: list[str], values: list[Any]) -> tuple[list[Any], list[Any]]:
        """Encode texts as tokens and labels as numbers.

        Args:
            encoder: Tokenizer of the texts.
            texts: The texts.
            values: Labels of each text, as :meth:`read` returned them.

        Returns:
            The tokens (n,) and the labels of each text.
        """

    @abstractmethod
    def facts(self, labels: np.ndarray) -> dict[str, Any]:
        """Return the names and statistics that models and losses need, as plain data.

        Args:
            labels: Labels of the training data: (documents,), (documents, targets) or (tokens,).
        """

    def notes(self, labels: np.ndarray, split: str) -> list[str]:
        """Return warnings about the labels of a split, one line each.

        Args:
            labels: Labels of the split: (documents,), (documents, targets) or (tokens,).
            split: Name of the split.
        """
        return []


class ClassLabels(Labels):
    """One class per text.

    Args:
        text_column: Column of the text.
        label_column: Column of the class.
        label_names: Names of the classes; see :class:`ClassNames`.
    """

    stored = pa.string()
    feature = datasets.Value("int64")

    def __init__(self, text_column: str, label_column: str, label_names: Sequence[str] | None = None) -> None:
        super().__init__({text_column: "text_column", label_column: "label_column"})
        self.text_column = text_column
        self.label_column = label_column
        self.classes = ClassNames(label_column, label_names)

    def read(self, row: Mapping[str, Any], location: str) -> tuple[str, Any]:
        text = text_of(row, self.text_column, location)
        return text, self.classes.read(row[self.label_column], location) if text else None

    def learn(self) -> None:
        self.classes.settle()

    def recall(self, facts: Mapping[str, Any]) -> None:
        self.classes.recall(facts["label_names"])

    def encode(self, encoder: DocumentEncoder, texts: list[str], values: list[Any]) -> tuple[list[Any], list[Any]]:
        return encoder.rows(texts), [self.classes.numbers[name] for name in values]

    def facts(self, labels: np.ndarray) -> dict[str, Any]:
        return self.classes.facts(labels)

    def notes(self, labels: np.ndarray, split: str) -> list[str]:
        return self.classes.notes() if split == "train" else []


class MultiClassListLabels(Labels):
    """Any number of classes per text.

    Args:
        text_column: Column of the text.
        classes: Reader of the classes.
    """

    feature = datasets.Sequence(datasets.Value("float32"))

    def __init__(self, text_column: str, classes: MultiLabels) -> None:
        super().__init__({text_column: "text_column", **dict.fromkeys(classes.columns, "label_column")})
        self.text_column = text_column
        self.classes = classes
        self.stored = pa.list_(pa.float32() if classes.has_column_per_class else pa.string())

    def read(self, row: Mapping[str, Any], location: str) -> tuple[str, Any]:
        text = text_of(row, self.text_column, location)
        return text, self.classes.read(row, location) if text else None

    def learn(self) -> None:
        self.classes.settle()

    def recall(self, facts: Mapping[str, Any]) -> None:
        self.classes.recall(facts["label_names"])

    def encode(self, encoder: DocumentEncoder, texts: list[str], values: list[Any]) -> tuple[list[Any], list[Any]]:
        return encoder.rows(texts), list(self.classes.encode(values))

    def facts(self, labels: np.ndarray) -> dict[str, Any]:
        return self.classes.facts(labels)

    def notes(self, labels: np.ndarray, split: str) -> list[str]:
        return self.classes.notes(labels, split)


class NumberLabels(Labels):
    """One or several numbers per text.

    Args:
        text_column: Column of the text.
        label_columns: Columns of the numbers. Missing numbers (null, empty text) are ignored by losses.
    """

    stored = pa.list_(pa.float64())
    feature = datasets.Sequence(datasets.Value("float64"))

    def __init__(self, text_column: str, label_columns: Sequence[str]) -> None:
        super().__init__({text_column: "text_column", **dict.fromkeys(label_columns, "label_column")})
        self.text_column = text_column
        self.label_columns = list(label_columns)

    def read(self, row: Mapping[str, Any], location: str) -> tuple[str, Any]:
        text = text_of(row, self.text_column, location)
        return text, [_number(row[column], column, location) for column in self.label_columns] if text else None

    def learn(self) -> None:
        """No-op."""

    def recall(self, facts: Mapping[str, Any]) -> None:
        """No-op."""

    def encode(self, encoder: DocumentEncoder, texts: list[str], values: list[Any]) -> tuple[list[Any], list[Any]]:
        return encoder.rows(texts), values

    def facts(self, labels: np.ndarray) -> dict[str, Any]:
        """Return names, means and standard deviations, ignoring missing numbers.

        Raises:
            DataError: If a column is constant or empty.
        """
        refuse_constant(self.label_columns, labels)
        mean, std = mean_and_std(labels)
        return {"target_names": self.label_columns, "target_mean": mean.tolist(), "target_std": std.tolist()}

    def notes(self, labels: np.ndarray, split: str) -> list[str]:
        return missing_targets(self.label_columns, labels, split)


class TokenLabels(Labels):
    """One class per token.

    If words have classes, they are joined by spaces. With a byte tokenizer, each byte of a word has the class of the
    word. With other tokenizers, the first token of a word has its class, and the other tokens are ignored, as is common
    for subwords. Tokens between words are ignored.

    If characters have classes, a token has the class of its first character that has one. A class of None is ignored.

    Args:
        text_column: Column of the text, for classes of characters.
        tokens_column: Column of lists of words; None: the characters of the text have classes.
        label_column: Column of lists of classes, one per word or character.
        label_names: Names of the classes; see :class:`ClassNames`.
    """

    # run-length encoding of the classes of characters
    stored = pa.list_(pa.struct({"name": pa.string(), "length": pa.int32()}))
    feature = datasets.Sequence(datasets.Value("int64"))
    by_token = True

    def __init__(
        self,
        text_column: str,
        tokens_column: str | None,
        label_column: str,
        label_names: Sequence[str] | None = None,
    ) -> None:
        source = {text_column: "text_column"} if tokens_column is None else {tokens_column: "tokens_column"}
        super().__init__({**source, label_column: "label_column"})
        self.text_column = text_column
        self.tokens_column = tokens_column
        self.label_column = label_column
        self.classes = ClassNames(label_column, label_names)

    def read(self, row: Mapping[str, Any], location: str) -> tuple[str, Any]:
        if self.tokens_column is None:
            text = text_of(row, self.text_column, location)
            names = self._names(row, len(text), "characters", location) if text else []
            runs: list[Run] = [(name, len(list(group))) for name, group in groupby(names)]
        else:
            words = _list(row, self.tokens_column, location)
            for word in words:
                if not isinstance(word, str) or not word:
                    raise DataError(f"{location}: {self.tokens_column!r} must list words, got {word!r:.40}")
            names = self._names(row, len(words), "words", location)
            text = " ".join(words)
            named_words = zip(words, names, strict=True)
            runs = [run for word, name in named_words for run in ((name, len(word)), (None, 1))][:-1]
        return text, [{"name": name, "length": length} for name, length in runs]

    def _names(self, row: Mapping[str, Any], count: int, unit: str, location: str) -> list[str | None]:
        labels = _list(row, self.label_column, location)
        if len(labels) != count:
            raise DataError(f"{location}: {len(labels)} labels in {self.label_column!r} for {count} {unit}")
        return [None if label is None else self.classes.read(label, location) for label in labels]

    def learn(self) -> None:
        self.classes.settle()

    def recall(self, facts: Mapping[str, Any]) -> None:
        self.classes.recall(facts["label_names"])

    def encode(self, encoder: DocumentEncoder, texts: list[str], values: list[Any]) -> tuple[list[Any], list[Any]]:
        # With subword tokenizers, only the first token of a word has a label.
        first_only = self.tokens_column is not None and encoder.offset is None
        rows = [self._encode(encoder, text, runs, first_only) for text, runs in zip(texts, values, strict=True)]
        return [ids for ids, _ in rows], [labels for _, labels in rows]

    def _encode(
        self, encoder: DocumentEncoder, text: str, runs: list[dict[str, Any]], first_only: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        classes = np.array([self.classes.numbers.get(run["name"], IGNORED) for run in runs], dtype=np.int64)
        lengths = np.array([run["length"] for run in runs], dtype=np.int64)
        characters = np.repeat(classes, lengths)
        if first_only:
            is_first = np.zeros(len(characters), dtype=bool)
            is_first[np.cumsum(lengths) - lengths] = True
            characters[~is_first] = IGNORED
        ids, spans = encoder.encode_with_spans(text)
        return ids, first_label_in_spans(characters, spans)

    def facts(self, labels: np.ndarray) -> dict[str, Any]:
        return self.classes.facts(labels)

    def notes(self, labels: np.ndarray, split: str) -> list[str]:
        return self.classes.similar() if split == "train" else []


def make_labels(
    target: LabelTarget,
    text_column: str,
    label_column: str | list[str],
    tokens_column: str | None,
    label_names: Sequence[str] | None,
    label_separator: str | None = None,
    has_lists: bool = False,
) -> Labels:
    """Create the parser of labels for a target.

    Args:
        target: Kind of the labels.
        text_column: Column of the text.
        label_column: Columns of the labels. Several columns have numbers or, for classes, 0 or 1 each.
        tokens_column: Column of lists of words.
        label_names: Names of the classes; see :class:`ClassNames`.
        label_separator: Separator of the classes in the label column. None: a single class, or a list.
        has_lists: The label column has lists of classes.

    Raises:
        UserError: If the columns do not fit the target.
    """
    columns = [label_column] if isinstance(label_column, str) else list(label_column)
    source = tokens_column if target == "token" and tokens_column else text_column
    if source in columns:
        raise UserError(f"label_column={source}: is the column of the text (name the column of the labels)")
    if label_separator is not None and target != "class":
        raise UserError(f"label_separator={label_separator!r}: has no effect with target={target} (leave it out)")
    if target == "class" and (has_lists or declares_multi_label(columns, label_separator)):
        return MultiClassListLabels(text_column, MultiLabels(columns, label_separator, label_names))
    if target == "number" and columns and len(set(columns)) == len(columns):
        return NumberLabels(text_column, columns)
    if len(columns) != 1:
        expected = "one or several different columns" if target == "number" else "one column"
        raise UserError(f"label_column={columns}: must name {expected} with target={target}")
    if target == "class":
        return ClassLabels(text_column, columns[0], label_names)
    return TokenLabels(text_column, tokens_column, columns[0], label_names)


def first_label_in_spans(characters: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """Find the first label within each span that is not ``IGNORED``.

    Args:
        characters: (characters,) labels.
        spans: (n, 2) start and end of the characters of each token.

    Returns:
        (n,) labels; ``IGNORED`` for spans without a label.
    """
    end = len(characters)
    indices = np.where(characters == IGNORED, end, np.arange(end))
    next_labelled = np.append(np.minimum.accumulate(indices[::-1])[::-1], end)
    first = next_labelled[spans[:, 0]]
    return np.where(first < spans[:, 1], np.append(characters, IGNORED)[first], IGNORED)


def _number(value: Any, column: str, location: str) -> float:
    try:
        if isinstance(value, bool):
            raise ValueError("a boolean")
        return number(value)
    except ValueError as error:
        raise DataError(
            f"{location}: {column!r} must be a finite number or missing with target=number, got {value!r:.40}"
        ) from error


def _list(row: Mapping[str, Any], column: str, location: str) -> list[Any]:
    value = row[column]
    if value is None:
        return []
    if not isinstance(value, list):
        raise DataError(f"{location}: {column!r} must be a list, got {kind_of(value)}")
    return value
