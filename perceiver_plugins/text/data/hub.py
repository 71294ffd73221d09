"""Data modules for text data sets of the Hugging Face hub, or of local folders."""

from __future__ import annotations

import io
import shutil
import urllib.request
import zipfile
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import IO, Any

import datasets
import numpy as np
from pytorch_lightning.utilities import rank_zero_info
from torch.utils.data import DataLoader

from perceiver_plugins.sdk.data.files import BLOCK, Piece, Row
from perceiver_plugins.sdk.data.loading import batches_trained
from perceiver_plugins.sdk.data.module import check_positive
from perceiver_plugins.sdk.data.splits import check_fraction
from perceiver_plugins.sdk.data.table_rows import check_delimiter
from perceiver_plugins.sdk.errors import DataError
from perceiver_plugins.text.data.encoding import DocumentEncoder
from perceiver_plugins.text.data.labelled_module import ColumnLabelsDataModule
from perceiver_plugins.text.data.module import DocumentDataModule, TextDataModule, UnlabelledTextDataModule
from perceiver_plugins.text.data.prepared import split_documents, write_documents
from perceiver_plugins.text.data.splits import Splits, file_states, open_splits
from perceiver_plugins.text.data.streaming import DocumentStream, StreamedChunks, StreamLoader, fingerprint
from perceiver_plugins.text.tokenizer_training import MAX_CHARACTERS
from perceiver_registry.errors import UserError


class HubText(DocumentDataModule):
    """Base class for text data sets of the Hugging Face hub, or of a local folder.

    Args:
        dataset: Hub id or local folder.
        subset: Name of the data set's part (on the hub: its configuration), if it has parts.
        train_split: Split to train on; several can be joined by ``+``.
        val_split: Split to validate on; null: ``validation`` if the data set has it, otherwise a fraction of the
            training data is held out.
        test_split: Split to test on; null: ``test`` if the data set has it.
        val_fraction: Fraction of the training data (of each class, with target=class) to hold out for validation if
            there is no validation split.
        text_column: Name of the column with the text.
        revision: Version on the hub: a branch, tag or commit.
        delimiter: Character between the columns of .csv and .tsv files of a local folder, such as ';' or tab; null: a
            comma, or a tab in .tsv files.
    """

    cache_name = "hub"

    def __init__(
        self,
        dataset: str,
        subset: str | None = None,
        train_split: str = "train",
        val_split: str | None = None,
        test_split: str | None = None,
        val_fraction: float = 0.05,
        text_column: str = "text",
        revision: str | None = None,
        delimiter: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.text_column = text_column  # set first: label columns are checked against it
        super().__init__(**kwargs)
        check_fraction(val_fraction)
        self.dataset = dataset
        self.subset = subset
        self.train_split = train_split
        self.val_split = val_split
        self.test_split = test_split
        self.val_fraction = val_fraction
        self.revision = revision
        self.delimiter = check_delimiter(delimiter)
        _ = self.splits  # report a missing folder now

    @cached_property
    def splits(self) -> Splits:
        """Source of the documents."""
        return open_splits(self.dataset, self.subset, self.revision, self.text_column, self.delimiter)

    def source_key(self) -> dict[str, Any]:
        names = [self.train_split, self.val_split, self.test_split]
        return {**self.splits.key(), "splits": names, "val_fraction": self.val_fraction}

    def _evaluation_split(self, name: str | None, default: str) -> str | None:
        """Return the name of an evaluation split, or None if the data set does not have it."""
        if name is not None and not self.splits.has(name):
            rank_zero_info(f"{self.dataset}: no split {name!r} for {default}")
            return None
        return name or (default if self.splits.has(default) else None)


class UnlabelledHubText(HubText, UnlabelledTextDataModule):
    """Documents without labels from the Hugging Face hub or a local folder, prepared in advance or streamed.

    Subclasses implement :meth:`make_stream` in addition.

    Args:
        streaming: Read documents during training instead of preparing all data first. For very large data sets.
        shuffle_buffer: Size of the shuffle buffer in documents, with streaming.
        stream_val_docs: Number of documents at the beginning of the training data to hold out for validation, with
            streaming and without a validation split.
    """

    def __init__(
        self,
        *args: Any,
        streaming: bool = False,
        shuffle_buffer: int = 1000,
        stream_val_docs: int = 1000,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        check_positive(shuffle_buffer=shuffle_buffer, stream_val_docs=stream_val_docs)
        self.streaming = streaming
        self.shuffle_buffer = shuffle_buffer
        self.stream_val_docs = stream_val_docs
        self._held_out: frozenset[bytes] = frozenset()

    @abstractmethod
    def make_stream(
        self, source: datasets.IterableDataset, column: str, encoder: DocumentEncoder, **options: Any
    ) -> DocumentStream:
        """Create the stream of the training data from the arguments of :class:`DocumentStream`."""

    def cache_key(self) -> dict[str, Any]:
        # of the trained tokenizer, as streamed text is not prepared
        streamed = {"stream_val_docs": self.stream_val_docs} if self.streaming else {}
        return {**super().cache_key(), **streamed}

    def training_documents(self, work: Path) -> Iterable[Piece]:
        return self._streamed_documents() if self.streaming else super().training_documents(work)

    def _streamed_documents(self) -> Iterator[Piece]:
        """Yield the beginning of the training data, without the documents that are held out."""
        _, held_out = self._validation_head()
        source, column = self.splits.stream(self.train_split)
        size = 0
        for row in source:
            text = row.get(column)
            if size >= MAX_CHARACTERS:
                return
            if text and fingerprint(text) not in held_out:
                size += len(text)
                yield Piece(text)

    def load_documents(self, work: Path) -> dict[str, datasets.Dataset]:
        loaded = {"train": self.splits.load(self.train_split, work)}
        if validation := self._evaluation_split(self.val_split, "validation"):
            loaded["validation"] = self.splits.load(validation, work)
        else:
            loaded["train"], loaded["validation"] = split_documents(loaded["train"], self.val_fraction, work)
        if test := self._evaluation_split(self.test_split, "test"):
            loaded["test"] = self.splits.load(test, work)
        self.notes += self.splits.notes
        return loaded

    @property
    def num_train_examples(self) -> int | None:
        """Number of training examples; None: unknown, with streaming."""
        return None if self.streaming else super().num_train_examples

    def prepare_data(self) -> None:
        if not self.streaming:
            super().prepare_data()

    def setup(self, stage: str | None = None) -> None:
        if not self.streaming:
            super().setup(stage)
            return
        head, self._held_out = self._validation_head()
        self.split_datasets["validation"] = self.make_dataset(self._encode(head), train=False)
        if test := self._evaluation_split(self.test_split, "test"):
            self.split_datasets["test"] = self.make_dataset(self._encode(self._head(test)), train=False)

    def _validation_head(self) -> tuple[list[str], frozenset[bytes]]:
        """Return the validation documents of a stream, and the fingerprints of those that are held out of training."""
        validation = self._evaluation_split(self.val_split, "validation")
        head = self._head(validation or self.train_split)
        if validation is None and len(head) < self.stream_val_docs:
            raise DataError(
                f"stream_val_docs={self.stream_val_docs}: would hold out all {len(head)} documents of {self.dataset} "
                "(pass a smaller number, or leave out streaming)"
            )
        return head, frozenset() if validation else frozenset(map(fingerprint, head))

    def _head(self, split: str) -> list[str]:
        source, column = self.splits.stream(split)
        texts = (row.get(column) for row in source)
        head = list(islice((text for text in texts if text), self.stream_val_docs))
        if not head:
            raise DataError(f"{self.dataset}: no text in the column {column!r} of the split {split!r}")
        return head

    def _encode(self, texts: list[str]) -> dict[str, np.ndarray]:
        return {name: arrays[0] for name, arrays in self.encoder({"text": texts}).items()}

    def loading_state(self) -> dict[str, int]:
        if not self.streaming:
            return super().loading_state()
        return {
            "streaming": 1,
            "batch_size": self.batch_size,
            "max_seq_len": self.max_seq_len,
            "num_replicas": self.num_replicas,
            "num_workers": self.loader_options()["num_workers"],
            "shuffle_buffer": self.shuffle_buffer,
        }

    def train_dataloader(self) -> DataLoader:
        if not self.streaming:
            return super().train_dataloader()
        trainer = self.trainer
        if trainer and trainer.max_steps == -1 and not isinstance(trainer.limit_train_batches, int):
            raise UserError(
                "streaming: has no epochs (pass trainer.max_steps and, to validate, trainer.val_check_interval)"
            )
        source, column = self.splits.stream(self.train_split)
        stream = self.make_stream(
            source,
            column,
            self.encoder,
            seed=self.seed,
            shuffle_buffer=self.shuffle_buffer,
            held_out=self._held_out,
            batch_size=self.batch_size,
            rank=self.rank,
            num_replicas=self.num_replicas,
        )
        progress = partial(batches_trained, trainer) if trainer else int
        # persistent workers would not receive the start of the next iteration
        options = {**self.loader_options(), "persistent_workers": False}
        return StreamLoader(stream, progress, **options)


class HubTextDataModule(UnlabelledHubText, TextDataModule):
    """Text for masked language modelling, from the Hugging Face hub or a local folder.

    A local folder contains a data set saved by ``save_to_disk``, or files named by their split (``train*``,
    ``valid*``, ``test*``, or folders of these names): .txt, .jsonl, .json, .csv, .tsv, .parquet, compressed
    or not.

    With ``streaming``, data is not prepared in advance: documents are read, shuffled within a buffer, tokenized and
    chunked during training. In each pass over the data, each document goes to one worker process of one device. Passes
    repeat without end, so ``trainer.max_steps`` is needed, and ``trainer.val_check_interval`` (in steps) for
    validation. Resuming reads all earlier documents again, and needs the same numbers of devices and workers.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.streaming and (self.static_masking or self.random_train_shift):
            flag = "static_masking" if self.static_masking else "random_train_shift"
            raise UserError(f"{flag}: not available with streaming, whose examples differ in every pass (leave it out)")

    def make_stream(
        self, source: datasets.IterableDataset, column: str, encoder: DocumentEncoder, **options: Any
    ) -> StreamedChunks:
        return StreamedChunks(
            source,
            column,
            encoder,
            self.masker,
            self.collator,
            self.max_seq_len,
            self.random_min_seq_len,
            self.random_train_truncation,
            **options,
        )


class LabelledHubTextDataModule(HubText, ColumnLabelsDataModule):
    """Labelled text, from the Hugging Face hub or a local folder.

    A local folder contains a data set saved by ``save_to_disk``, or files named by their split (``train*``,
    ``valid*``, ``test*``, or folders of these names): .jsonl, .json, .csv, .tsv, .parquet, compressed
    or not.
    """

    def load_rows(self) -> dict[str, Iterable[Row]]:
        columns = self.new_labels(self._label_names).columns
        names = {
            "train": self.train_split,
            "validation": self._evaluation_split(self.val_split, "validation"),
            "test": self._evaluation_split(self.test_split, "test"),
        }
        return {split: self.splits.rows(name, columns) for split, name in names.items() if name}

    def given_label_names(self) -> Sequence[str] | None:
        if self._label_names or not isinstance(self.label_column, str) or self.target == "number":
            return self._label_names
        return self.splits.label_names(self.train_split, self.label_column)


HubTextDataModule.other_targets = LabelledHubTextDataModule


class Wikipedia(HubText):
    """English Wikipedia, all articles (20 GB of text); a fraction is held out for validation.

    Args:
        dataset: Hub id or local folder.
        subset: Date and language of the dump.
        val_fraction: Fraction of the articles to hold out for validation.
    """

    cache_name = "wikipedia"

    def __init__(
        self,
        dataset: str = "wikimedia/wikipedia",
        subset: str | None = "20231101.en",
        val_fraction: float = 0.005,
        **kwargs: Any,
    ) -> None:
        super().__init__(dataset=dataset, subset=subset, val_fraction=val_fraction, **kwargs)


class WikiText(HubText):
    """WikiText-103: good and featured articles of Wikipedia (500 MB), with splits for validation and test.

    Args:
        dataset: Hub id or local folder.
        subset: ``wikitext-103-raw-v1`` or the small ``wikitext-2-raw-v1``.
    """

    cache_name = "wikitext"

    def __init__(
        self, dataset: str = "Salesforce/wikitext", subset: str | None = "wikitext-103-raw-v1", **kwargs: Any
    ) -> None:
        super().__init__(dataset=dataset, subset=subset, **kwargs)


class BookCorpus(HubText):
    """BookCorpus: novels, one sentence per document (5 GB); a fraction is held out for validation.

    Args:
        dataset: Hub id or local folder.
        revision: Version on the hub; default: the hub's conversion to Parquet, as newer versions of ``datasets`` do not
            run the script of the original.
        val_fraction: Fraction of the sentences to hold out for validation.
    """

    cache_name = "bookcorpus"

    def __init__(
        self,
        dataset: str = "bookcorpus/bookcorpus",
        revision: str | None = "refs/convert/parquet",
        val_fraction: float = 0.005,
        **kwargs: Any,
    ) -> None:
        super().__init__(dataset=dataset, revision=revision, val_fraction=val_fraction, **kwargs)


class Imdb(HubText):
    """IMDb movie reviews, including the 50,000 without a label.

    Args:
        dataset: Hub id or local folder.
        train_split: Split to train on; null: ``train+unsupervised``.
        val_split: Split to validate on; null: ``test``.
    """

    cache_name = "imdb"

    def __init__(
        self,
        dataset: str = "stanfordnlp/imdb",
        train_split: str | None = None,
        val_split: str | None = None,
        **kwargs: Any,
    ) -> None:
        train_split, val_split = train_split or "train+unsupervised", val_split or "test"
        super().__init__(dataset=dataset, train_split=train_split, val_split=val_split, **kwargs)


class WikipediaDataModule(Wikipedia, HubTextDataModule):
    """English Wikipedia, all articles (20 GB of text); a fraction is held out for validation."""


class WikiTextDataModule(WikiText, HubTextDataModule):
    """WikiText-103: good and featured articles of Wikipedia (500 MB), with splits for validation and test."""


class BookCorpusDataModule(BookCorpus, HubTextDataModule):
    """BookCorpus: novels, one sentence per document (5 GB); a fraction is held out for validation."""


class ImdbDataModule(Imdb, HubTextDataModule):
    """IMDb movie reviews, including the 50,000 without a label."""


class LabelledImdbDataModule(LabelledHubTextDataModule):
    """IMDb movie reviews, positive and negative (pos, neg): 25,000 for training and 25,000 for test.

    A local folder may have other labels.

    Args:
        dataset: Hub id or local folder.
        train_split: Split to train on; null: ``train``.
    """

    cache_name = "imdb"

    def __init__(self, dataset: str = "stanfordnlp/imdb", train_split: str | None = None, **kwargs: Any) -> None:
        super().__init__(dataset=dataset, train_split=train_split or "train", **kwargs)


ImdbDataModule.other_targets = LabelledImdbDataModule


class Enwik8(UnlabelledTextDataModule):
    """The first 100 MB of an English Wikipedia dump, markup included.

    The first 90 % are for training, the next 5 % for validation, the last 5 % for test.

    Args:
        dataset: URL of the zip archive; or a local source: the file ``enwik8``, a zip archive with it, or a folder with
            either.
    """

    cache_name = "enwik8"

    def __init__(self, dataset: str = "http://mattmahoney.net/dc/enwik8.zip", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dataset = dataset
        self._file = None if "://" in dataset else _find_enwik8(Path(dataset).expanduser())

    def source_key(self) -> dict[str, Any]:
        return {"files": file_states([self._file])} if self._file else {"address": self.dataset}

    def load_documents(self, work: Path) -> dict[str, datasets.Dataset]:
        path = self._file or _download(self.dataset, work / "enwik8.zip")
        with _open_enwik8(path) as file:
            data = file.read()
        ends = [_character_start(data, len(data) * part // 20) for part in (0, 18, 19, 20)]
        return {
            split: write_documents(work / f"{split}.arrow", _pieces(path, data, begin, end))
            for split, begin, end in zip(("train", "validation", "test"), ends[:-1], ends[1:], strict=True)
        }


class Enwik8DataModule(Enwik8, TextDataModule):
    """The first 100 MB of an English Wikipedia dump, markup included.

    The first 90 % are for training, the next 5 % for validation, the last 5 % for test.
    """


def _find_enwik8(path: Path) -> Path:
    for candidate in (path, path / "enwik8", path / "enwik8.zip"):
        if candidate.is_file():
            return candidate
    raise DataError(f"dataset={path}: neither the file enwik8 nor enwik8.zip, nor a folder with one of them")


def _download(url: str, path: Path) -> Path:
    try:
        with urllib.request.urlopen(url, timeout=60) as source, path.open("wb") as target:
            shutil.copyfileobj(source, target)
    except (OSError, ValueError) as error:
        raise DataError(f"{url}: download failed: {error} (a local file can be named with dataset=FILE)") from error
    return path


def _open_enwik8(path: Path) -> IO[bytes]:
    if not zipfile.is_zipfile(path):
        return path.open("rb")
    try:
        with zipfile.ZipFile(path) as archive:
            return io.BytesIO(archive.read("enwik8"))
    except (KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: no file 'enwik8' in the archive, or it is damaged") from error


def _character_start(data: bytes, offset: int) -> int:
    """Return the first start of a character at or after ``offset`` bytes of UTF-8."""
    while offset < len(data) and data[offset] & 0xC0 == 0x80:
        offset += 1
    return offset


def _pieces(path: Path, data: bytes, begin: int, end: int) -> Iterator[Piece]:
    start = begin
    while start < end:
        stop = min(_character_start(data, start + BLOCK), end)
        try:
            text = data[start:stop].decode("utf-8")
        except UnicodeDecodeError as error:
            if stop < len(data) or error.reason != "unexpected end of data":
                raise DataError(f"{path}: not UTF-8 text at byte {start + error.start}") from error
            # the first 100 MB may end within a character: drop it
            text = data[start : start + error.start].decode("utf-8")
        yield Piece(text, start == begin, stop == end)
        start = stop
