"""What is to be predicted of a text, besides its own tokens: read from the rows of a table, checked and numbered."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, ClassVar, Literal

import datasets
import numpy as np
import pyarrow as pa

from perceiver_plugins.sdk.data.cells import number, text_of
from perceiver_plugins.sdk.data.class_names import ClassNames
from perceiver_plugins.sdk.data.loading import IGNORED
from perceiver_plugins.sdk.data.statistics import mean_and_std, missing_targets, refuse_constant
from perceiver_plugins.sdk.errors import DataError
from perceiver_plugins.text.data.encoding import DocumentEncoder
from perceiver_registry.errors import UserError

LabelTarget = Literal["class", "number", "token"]
"""What a model is to predict of a text: its class, numbers, or a class for each token."""

Run = tuple[str | None, int]
"""A class, or None where nothing is to be predicted, and the number of consecutive characters that have it."""


class Labels(ABC):
    """Reads texts with what is to be predicted of them.

    All training data is read first, by :meth:`read`, then :meth:`learn` is called, then the rest is read. After that,
    :meth:`encode` can be used, in other processes as well.

    Args:
        columns: The columns that rows must have, each with the flag that names it.
    """

    stored: ClassVar[pa.DataType]
    """Type of what :meth:`read` returns."""

    feature: ClassVar[Any]
    """Type of what :meth:`encode` returns for a document."""

    by_token: ClassVar[bool] = False
    """Whether that is a label for each token."""

    def __init__(self, columns: Mapping[str, str]) -> None:
        self.columns = columns

    @abstractmethod
    def read(self, row: Mapping[str, Any], place: str) -> tuple[str, Any]:
        """The text of a row, and what is to be predicted of it. Where the text is "", the latter means nothing.

        Args:
            row: Values by column.
            place: Where the row is, for errors.

        Raises:
            DataError: If something in the row is missing, or not what it should be.
        """

    @abstractmethod
    def learn(self) -> None:
        """All training data has been read: whatever depends on it is settled.

        Raises:
            DataError: If it is not fit to learn from.
        """

    @abstractmethod
    def recall(self, facts: Mapping[str, Any]) -> None:
        """Restore facts about the training data where it is not available.

        Args:
            facts: What a trained model knows of its labels; see :meth:`facts`.
        """

    @abstractmethod
    def encode(self, encoder: DocumentEncoder, texts: list[str], values: list[Any]) -> tuple[list[Any], list[Any]]:
        """The tokens of each text (n,), and what is to be predicted, as numbers.

        Args:
            encoder: Makes tokens.
            texts: The texts.
            values: What :meth:`read` returned with each.
        """

    @abstractmethod
    def facts(self, labels: np.ndarray) -> dict[str, Any]:
        """What models and losses need to know, as plain data.

        Args:
            labels: The labels of the training data: (documents,), (documents, numbers) or (tokens,).
        """

    def notes(self, labels: np.ndarray, split: str) -> list[str]:
        """A line for each thing to report of the labels of a split.

        Args:
            labels: Its labels: (documents,), (documents, numbers) or (tokens,).
            split: Its name.
        """
        return []


class ClassLabels(Labels):
    """A class for each text.

    Args:
        text_column: The column with the text.
        label_column: The column with the class.
        label_names: See :class:`ClassNames`.
    """

    stored = pa.string()
    feature = datasets.Value("int64")

    def __init__(self, text_column: str, label_column: str, label_names: Sequence[str] | None = None) -> None:
        super().__init__({text_column: "text_column", label_column: "label_column"})
        self.text_column = text_column
        self.label_column = label_column
        self.classes = ClassNames(label_column, label_names)

    def read(self, row: Mapping[str, Any], place: str) -> tuple[str, Any]:
        text = text_of(row, self.text_column, place)
        return text, self.classes.read(row[self.label_column], place) if text else None

    def learn(self) -> None:
        self.classes.settle()

    def recall(self, facts: Mapping[str, Any]) -> None:
        self.classes.recall(facts["label_names"])

    def encode(self, encoder: DocumentEncoder, texts: list[str], values: list[Any]) -> tuple[list[Any], list[Any]]:
        return encoder.rows(texts), [self.classes.numbers[name] for name in values]

    def facts(self, labels: np.ndarray) -> dict[str, Any]:
        return self.classes.facts(labels)

    def notes(self, labels: np.ndarray, split: str) -> list[str]:
        return self.classes.similar() if split == "train" else []


class NumberLabels(Labels):
    """One or several numbers for each text.

    Args:
        text_column: The column with the text.
        label_columns: The columns with the numbers; a missing number (null, or an empty text) is not predicted.
    """

    stored = pa.list_(pa.float64())
    feature = datasets.Sequence(datasets.Value("float64"))

    def __init__(self, text_column: str, label_columns: Sequence[str]) -> None:
        super().__init__({text_column: "text_column", **dict.fromkeys(label_columns, "label_column")})
        self.text_column = text_column
        self.label_columns = list(label_columns)

    def read(self, row: Mapping[str, Any], place: str) -> tuple[str, Any]:
        text = text_of(row, self.text_column, place)
        return text, [_number(row[column], column, place) for column in self.label_columns] if text else None

    def learn(self) -> None:
        """Nothing depends on it."""

    def recall(self, facts: Mapping[str, Any]) -> None:
        """Nothing depends on it."""

    def encode(self, encoder: DocumentEncoder, texts: list[str], values: list[Any]) -> tuple[list[Any], list[Any]]:
        return encoder.rows(texts), values

    def facts(self, labels: np.ndarray) -> dict[str, Any]:
        """Names, means and standard deviations, missing numbers left out.

        Raises:
            DataError: If a column has no two different numbers.
        """
        refuse_constant(self.label_columns, labels)
        mean, std = mean_and_std(labels)
        return {"target_names": self.label_columns, "target_mean": mean.tolist(), "target_std": std.tolist()}

    def notes(self, labels: np.ndarray, split: str) -> list[str]:
        return missing_targets(self.label_columns, labels, split)


class TokenLabels(Labels):
    """A class for each token.

    Words are joined by spaces. The class of a word goes to all of its bytes or, with another tokenizer, to its first
    token, as is usual; nothing is predicted for its other tokens, nor between words. Classes of characters go to all
    of their bytes, and to the token that begins with them. None is a class that is not predicted.

    Args:
        text_column: The column with the text, for classes of characters.
        tokens_column: The column with lists of words; None: the text's characters.
        label_column: The column with lists of their classes.
        label_names: See :class:`ClassNames`.
    """

    # Consecutive characters of the same class together: of a word, or of the text.
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

    def read(self, row: Mapping[str, Any], place: str) -> tuple[str, Any]:
        if self.tokens_column is None:
            text = text_of(row, self.text_column, place)
            names = self._names(row, len(text), "characters", place) if text else []
            runs: list[Run] = [(name, len(list(group))) for name, group in groupby(names)]
        else:
            words = _list(row, self.tokens_column, place)
            for word in words:
                if not isinstance(word, str) or not word:
                    raise DataError(f"{place}: {self.tokens_column!r} holds {word!r:.40}, which is no word")
            names = self._names(row, len(words), "words", place)
            text = " ".join(words)
            spaced = zip(words, names, strict=True)
            runs = [run for word, name in spaced for run in ((name, len(word)), (None, 1))][:-1]
        return text, [{"name": name, "length": length} for name, length in runs]

    def _names(self, row: Mapping[str, Any], count: int, what: str, place: str) -> list[str | None]:
        labels = _list(row, self.label_column, place)
        if len(labels) != count:
            raise DataError(f"{place}: {len(labels)} labels in {self.label_column!r} for {count} {what}")
        return [None if label is None else self.classes.read(label, place) for label in labels]

    def learn(self) -> None:
        self.classes.settle()

    def recall(self, facts: Mapping[str, Any]) -> None:
        self.classes.recall(facts["label_names"])

    def encode(self, encoder: DocumentEncoder, texts: list[str], values: list[Any]) -> tuple[list[Any], list[Any]]:
        # Only a subword tokenizer cuts a word into pieces of which one stands for it.
        first_only = self.tokens_column is not None and encoder.offset is None
        rows = [self._encode(encoder, text, runs, first_only) for text, runs in zip(texts, values, strict=True)]
        return [ids for ids, _ in rows], [labels for _, labels in rows]

    def _encode(
        self, encoder: DocumentEncoder, text: str, runs: list[dict[str, Any]], first_only: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        numbers = np.array([self.classes.numbers.get(run["name"], IGNORED) for run in runs], dtype=np.int64)
        lengths = np.array([run["length"] for run in runs], dtype=np.int64)
        characters = np.repeat(numbers, lengths)
        if first_only:
            begins = np.zeros(len(characters), dtype=bool)
            begins[np.cumsum(lengths) - lengths] = True
            characters[~begins] = IGNORED
        ids, spans = encoder.encode_with_spans(text)
        return ids, first_known(characters, spans)

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
) -> Labels:
    """What reads the labels for a target.

    Raises:
        UserError: If the columns do not go with the target.
    """
    columns = [label_column] if isinstance(label_column, str) else list(label_column)
    source = tokens_column if target == "token" and tokens_column else text_column
    if source in columns:
        raise UserError(f"label_column={source}: names the column with the text; name that with the labels")
    if target == "number" and columns and len(set(columns)) == len(columns):
        return NumberLabels(text_column, columns)
    if len(columns) != 1:
        what = "one or several columns, each once" if target == "number" else "one column"
        raise UserError(f"label_column={columns}: name {what} for target={target}")
    if target == "class":
        return ClassLabels(text_column, columns[0], label_names)
    return TokenLabels(text_column, tokens_column, columns[0], label_names)


def first_known(characters: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """The first label within each span that is not ``IGNORED``, or ``IGNORED``.

    Args:
        characters: (characters,) labels.
        spans: (n, 2) where the characters of a token begin and end.

    Returns:
        (n,) labels.
    """
    end = len(characters)
    places = np.where(characters == IGNORED, end, np.arange(end))
    following = np.append(np.minimum.accumulate(places[::-1])[::-1], end)
    first = following[spans[:, 0]]
    return np.where(first < spans[:, 1], np.append(characters, IGNORED)[first], IGNORED)


def _number(value: Any, column: str, place: str) -> float:
    try:
        if isinstance(value, bool):
            raise ValueError("a boolean")
        return number(value)
    except ValueError as error:
        raise DataError(
            f"{place}: {column!r} is {value!r:.40}, which is no number to train on; target=number needs one, or none"
        ) from error


def _list(row: Mapping[str, Any], column: str, place: str) -> list[Any]:
    value = row[column]
    if value is None:
        return []
    if not isinstance(value, list):
        raise DataError(f"{place}: {column!r} is not a list but {type(value).__name__}")
    return value
