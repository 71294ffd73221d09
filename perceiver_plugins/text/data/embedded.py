"""Data modules of text that comes with Python and installed packages, without downloads."""

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
from perceiver_plugins.text.data.module import DocumentDataModule, TextDataModule, UnlabelledTextDataModule
from perceiver_plugins.text.data.prepared import write_documents
from perceiver_plugins.text.data.python_code import CLASSES, code_windows


class PythonDocs(UnlabelledTextDataModule):
    """English text that comes with Python."""

    cache_name = "python-docs"

    def source_key(self) -> dict[str, Any]:
        return {"python": python_version()}

    def load_documents(self, work: Path) -> dict[str, datasets.Dataset]:
        pieces: dict[str, list[Piece]] = {"train": [], "validation": [], "test": []}
        for name, text in python_docs():
            pieces[split_of(name)].append(Piece(text + "\n\n"))
        return {split: write_documents(work / f"{split}.arrow", texts) for split, texts in pieces.items()}


class PythonDocsDataModule(PythonDocs, TextDataModule):
    """English text that comes with Python: its reference topics and its library's docstrings (2 MB).

    Nothing is downloaded. The defaults suit a small model on a CPU: single bytes are masked, which a model learns to
    predict within minutes of training, unlike whole words.

    Args:
        max_seq_len: Tokens per example, at most.
        mask_words: Mask whole words (true) or single tokens (false).
        batch_size: Examples per batch and device, in training.
    """

    def __init__(self, max_seq_len: int = 128, mask_words: bool = False, batch_size: int = 32, **kwargs: Any) -> None:
        super().__init__(max_seq_len=max_seq_len, mask_words=mask_words, batch_size=batch_size, **kwargs)


class GeneratedText(DocumentDataModule):
    """Base class of data modules whose labelled texts a function generates."""

    @abstractmethod
    def labelled_texts(self) -> Iterator[tuple[str, str, Any]]:
        """Yield (split, text, label) of each document."""


class LabelledGeneratedDataModule(GeneratedText, LabelledTextDataModule):
    """Generated texts with their labels."""

    def load_rows(self) -> dict[str, Iterable[Row]]:
        rows: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
        for split, text, label in self.labelled_texts():
            rows[split].append((f"{split}, row {len(rows[split]) + 1}", {"text": text, "label": label}))
        return {**rows}


class MaskedGeneratedDataModule(GeneratedText, TextDataModule):
    """Generated texts for masked language modelling, without their labels."""

    def load_documents(self, work: Path) -> dict[str, datasets.Dataset]:
        pieces: dict[str, list[Piece]] = {"train": [], "validation": [], "test": []}
        for split, text, _ in self.labelled_texts():
            pieces[split].append(Piece(text + "\n"))
        return {split: write_documents(work / f"{split}.arrow", texts) for split, texts in pieces.items()}


class LanguageNames(GeneratedText):
    """Names in 32 languages from the Unicode Consortium's locale data."""

    cache_name = "languages"

    def source_key(self) -> dict[str, Any]:
        return {"babel": languages_version()}

    def labelled_texts(self) -> Iterator[tuple[str, str, Any]]:
        return language_texts()


class LanguagesDataModule(LanguageNames, LabelledGeneratedDataModule):
    """Language identification (32 languages) from names of languages, countries, scripts, currencies, months etc.

    The names come from the Unicode Consortium's locale data in the package Babel; names that several languages share
    are left out. A text is one name, or several separated by commas. There are about 14,000 texts: 80 % of the names
    for training, 10 % each for validation and test. No name is in two texts. Nothing is downloaded.

    Args:
        max_seq_len: Tokens per example, at most.
    """

    targets: ClassVar[tuple[str, ...]] = ("class",)

    def __init__(self, max_seq_len: int = 64, **kwargs: Any) -> None:
        super().__init__(max_seq_len=max_seq_len, **kwargs)


class MaskedLanguagesDataModule(LanguageNames, MaskedGeneratedDataModule):
    """Texts of :class:`LanguagesDataModule` for masked language modelling.

    Args:
        max_seq_len: Tokens per example, at most.
    """

    def __init__(self, max_seq_len: int = 64, **kwargs: Any) -> None:
        super().__init__(max_seq_len=max_seq_len, **kwargs)


class PythonCode(GeneratedText):
    """Windows of code of Python's standard library."""

    cache_name = "python-code"

    def source_key(self) -> dict[str, Any]:
        return {"python": python_version(), "window": self.max_seq_len}

    def labelled_texts(self) -> Iterator[tuple[str, str, Any]]:
        return code_windows(self.max_seq_len)


class PythonCodeDataModule(PythonCode, LabelledGeneratedDataModule):
    """Lexical class of each byte of Python code: space, comment, string, number, operator, keyword, builtin or name.

    The code is about 2 MB of Python's standard library, in windows of whole lines of at most ``max_seq_len`` characters
    (a longer line is a window of its own). 90 % of the modules are for training, 5 % each for validation and test.
    Nothing is downloaded.

    Args:
        target: Kind of labels: token.
        max_seq_len: Tokens per example, at most.
    """

    targets: ClassVar[tuple[str, ...]] = ("token",)
    _label_names = CLASSES

    def __init__(self, target: LabelTarget = "token", max_seq_len: int = 128, **kwargs: Any) -> None:
        super().__init__(target=target, max_seq_len=max_seq_len, **kwargs)


class MaskedPythonCodeDataModule(PythonCode, MaskedGeneratedDataModule):
    """Texts of :class:`PythonCodeDataModule` for masked language modelling.

    Args:
        max_seq_len: Tokens per example, at most.
    """

    def __init__(self, max_seq_len: int = 128, **kwargs: Any) -> None:
        super().__init__(max_seq_len=max_seq_len, **kwargs)


LanguagesDataModule.other_targets = MaskedLanguagesDataModule
PythonCodeDataModule.other_targets = MaskedPythonCodeDataModule
