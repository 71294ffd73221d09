"""Data modules of what comes with Python and its packages: nothing is downloaded."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import datasets

from perceiver_plugins.sdk.data.files import Piece, Row
from perceiver_plugins.text.data.corpora import python_docs, python_version, split_of
from perceiver_plugins.text.data.labelled_module import LabelledTextDataModule
from perceiver_plugins.text.data.labels import LabelTarget
from perceiver_plugins.text.data.languages import language_texts, languages_version
from perceiver_plugins.text.data.module import DocumentDataModule, TextDataModule
from perceiver_plugins.text.data.prepared import write_documents
from perceiver_plugins.text.data.python_code import CLASSES, code_windows


class PythonDocsDataModule(TextDataModule):
    """English text that comes with Python: its reference topics and its library's docstrings (2 MB).

    Nothing is downloaded. The defaults suit a small model on a CPU: single bytes are masked, as those can be
    told from their neighbours within minutes of training, and whole words cannot.

    Args:
        max_seq_len: Tokens per example, at most.
        mask_words: Mask whole words (true) or single tokens (false).
        batch_size: Examples per batch and device, in training.
    """

    cache_name = "python-docs"

    def __init__(self, max_seq_len: int = 128, mask_words: bool = False, batch_size: int = 32, **kwargs: Any) -> None:
        super().__init__(max_seq_len=max_seq_len, mask_words=mask_words, batch_size=batch_size, **kwargs)

    def source_key(self) -> dict[str, Any]:
        return {"python": python_version()}

    def load_documents(self, work: Path) -> dict[str, datasets.Dataset]:
        pieces: dict[str, list[Piece]] = {"train": [], "validation": [], "test": []}
        for name, text in python_docs():
            pieces[split_of(name)].append(Piece(text + "\n\n"))
        return {split: write_documents(work / f"{split}.arrow", texts) for split, texts in pieces.items()}


class EmbeddedLabels(DocumentDataModule):
    """Labelled texts from a function."""

    @abstractmethod
    def labelled_texts(self) -> Iterator[tuple[str, str, Any]]:
        """(split, text, label) of each document."""


class LabelledEmbeddedDataModule(EmbeddedLabels, LabelledTextDataModule):
    """Labelled texts from a function, with their labels."""

    def load_rows(self) -> dict[str, Iterable[Row]]:
        rows: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
        for split, text, label in self.labelled_texts():
            rows[split].append((f"{split}, row {len(rows[split]) + 1}", {"text": text, "label": label}))
        return {**rows}


class MaskedEmbeddedDataModule(EmbeddedLabels, TextDataModule):
    """Labelled texts from a function, without their labels."""

    def load_documents(self, work: Path) -> dict[str, datasets.Dataset]:
        pieces: dict[str, list[Piece]] = {"train": [], "validation": [], "test": []}
        for split, text, _ in self.labelled_texts():
            pieces[split].append(Piece(text + "\n"))
        return {split: write_documents(work / f"{split}.arrow", texts) for split, texts in pieces.items()}


class LanguageNames(EmbeddedLabels):
    """Names in 32 languages from the Unicode Consortium's locale data."""

    cache_name = "languages"

    def source_key(self) -> dict[str, Any]:
        return {"babel": languages_version()}

    def labelled_texts(self) -> Iterator[tuple[str, str, Any]]:
        return language_texts()


class LanguagesDataModule(LanguageNames, LabelledEmbeddedDataModule):
    """Which of 32 languages a text is in: names of languages, countries, scripts, currencies, months and the like.

    The names come from the Unicode Consortium's locale data, as the package Babel has them; those that are the same
    in several languages are left out. A text is one name, or several in a row. There are about 14,000 texts: 80 % of
    the names are for training, 10 % each for validation and test, and no name is in two texts. Nothing is downloaded.

    Args:
        max_seq_len: Tokens per example, at most.
    """

    targets: ClassVar[tuple[str, ...]] = ("class",)

    def __init__(self, max_seq_len: int = 64, **kwargs: Any) -> None:
        super().__init__(max_seq_len=max_seq_len, **kwargs)


class MaskedLanguagesDataModule(LanguageNames, MaskedEmbeddedDataModule):
    """Names in 32 languages, as :class:`LanguagesDataModule` has them, for masked language modelling.

    Args:
        max_seq_len: Tokens per example, at most.
    """

    def __init__(self, max_seq_len: int = 64, **kwargs: Any) -> None:
        super().__init__(max_seq_len=max_seq_len, **kwargs)


class PythonCode(EmbeddedLabels):
    """Windows of Python's own library."""

    cache_name = "python-code"

    def source_key(self) -> dict[str, Any]:
        return {"python": python_version(), "window": self.max_seq_len}

    def labelled_texts(self) -> Iterator[tuple[str, str, Any]]:
        return code_windows(self.max_seq_len)


class PythonCodeDataModule(PythonCode, LabelledEmbeddedDataModule):
    """What each byte of Python code is part of: space, comment, string, number, operator, keyword, builtin or name.

    The code is about 2 MB of Python's own library, in windows of whole lines, with as many as ``max_seq_len``
    characters can hold. Modules are for training (90 %), validation or test (5 % each). Nothing is downloaded.

    Args:
        target: What is to be predicted: token.
        max_seq_len: Tokens per example, at most.
    """

    targets: ClassVar[tuple[str, ...]] = ("token",)
    _label_names = CLASSES

    def __init__(self, target: LabelTarget = "token", max_seq_len: int = 128, **kwargs: Any) -> None:
        super().__init__(target=target, max_seq_len=max_seq_len, **kwargs)


class MaskedPythonCodeDataModule(PythonCode, MaskedEmbeddedDataModule):
    """Python code, as :class:`PythonCodeDataModule` has it, for masked language modelling.

    Args:
        max_seq_len: Tokens per example, at most.
    """

    def __init__(self, max_seq_len: int = 128, **kwargs: Any) -> None:
        super().__init__(max_seq_len=max_seq_len, **kwargs)


LanguagesDataModule.other_targets = MaskedLanguagesDataModule
PythonCodeDataModule.other_targets = MaskedPythonCodeDataModule
