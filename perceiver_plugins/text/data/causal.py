"""Text for causal language models: windows of consecutive tokens, and the tokens that follow them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Literal

import datasets
import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from perceiver_plugins.sdk.data.causal import CausalDataModule, ScoringWindows, TokenSequence, TrainingWindows
from perceiver_plugins.text.data.embedded import PythonDocs
from perceiver_plugins.text.data.encoding import DocumentEncoder
from perceiver_plugins.text.data.hub import BookCorpus, Enwik8, Imdb, UnlabelledHubText, Wikipedia, WikiText
from perceiver_plugins.text.data.local import UnlabelledTextFiles
from perceiver_plugins.text.data.module import UnlabelledTextDataModule
from perceiver_plugins.text.data.streaming import DocumentStream
from perceiver_plugins.text.tokenizers import PERCEIVER_TOKENIZER, document_end_id
from perceiver_registry.errors import UserError

ARTICLE_TITLE = re.compile(r"\s*= [^=](.*[^=])? =\s*")
"""Pattern of the rows of WikiText that begin an article; titles of sections have several equals signs."""


def document_bounds(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """Return the tokens that begin and end documents: BOS or CLS, and EOS or SEP.

    Without BOS and CLS, the token that ends a document also begins the next.

    Raises:
        TokenizerError: If the tokenizer has neither EOS nor SEP.
    """
    end = document_end_id(tokenizer, f"choose another tokenizer, such as {PERCEIVER_TOKENIZER!r}")
    begins = [token for token in (tokenizer.bos_token_id, tokenizer.cls_token_id) if token is not None]
    return (int(begins[0]) if begins else end), end


class CausalEncoder(DocumentEncoder):
    """Tokenizes documents for causal language models: the token that begins them, their tokens, and that ends them.

    Documents without text are left out. If one token both begins and ends documents, it is not repeated between them,
    and the last document has no end.

    Args:
        tokenizer: A fast tokenizer, or a byte tokenizer.

    Attributes:
        begin_id: The token that begins documents, if it has no other meaning, otherwise None.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(tokenizer, words=False)
        begin, end = document_bounds(tokenizer)
        self.prefix, self.suffix = [begin], [end] if end != begin else []
        self.begin_id = begin if end != begin else None

    @property
    def columns(self) -> dict[str, str]:
        # a token of other tokenizers may be a long word
        return {"input_ids": np.dtype(self.dtype).name, "num_bytes": "uint8" if self.offset is not None else "uint32"}

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[np.ndarray]]:
        """Encode a batch of documents, or of consecutive pieces of documents, as the base class does.

        Returns:
            ``input_ids`` and ``num_bytes``, the UTF-8 bytes of text of each token (0 for tokens that begin or end
            documents), each a list of one array with all tokens of the batch.
        """
        size = len(batch["text"])
        whole = zip(*(batch.get(name) or [True] * size for name in ("first", "last")), strict=True)
        kept = [bool(text) or not all(bounds) for text, bounds in zip(batch["text"], whole, strict=True)]
        batch = {
            name: [value for value, is_kept in zip(values, kept, strict=True) if is_kept]
            for name, values in batch.items()
        }
        encoded = super().__call__(batch)
        return {"input_ids": encoded["input_ids"], "num_bytes": encoded["word_parts"]}

    def encode(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tokenize texts without special tokens around them, and concatenate the tokens.

        Returns:
            Tokens (n,), UTF-8 bytes of each token (n,), and the number of tokens of each text (texts,).
        """
        if self.offset is not None:
            ids, _, lengths = super().encode(texts)
            return ids, np.ones(len(ids), np.uint8), lengths
        encoded = self.tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        rows, spans = encoded["input_ids"], encoded["offset_mapping"]
        sizes = [bytes_of_tokens(text, np.array(row).reshape(-1, 2)) for text, row in zip(texts, spans, strict=True)]
        ids = np.array(list(chain.from_iterable(rows)), dtype=self.dtype)
        return ids, np.concatenate([np.zeros(0, np.uint32), *sizes]), np.array([len(row) for row in rows])


def bytes_of_tokens(text: str, spans: np.ndarray) -> np.ndarray:
    """Count the UTF-8 bytes of a text from each token to the next.

    The sum is the size of the text, whatever a tokenizer drops or normalizes. Of the tokens of a single character, the
    last has its bytes.

    Args:
        text: The text.
        spans: (n, 2) start and end of the characters of each token.

    Returns:
        (n,) uint32.
    """
    if not len(spans):
        return np.zeros(0, np.uint32)
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    sizes = 1 + (codes >= 0x80) + (codes >= 0x800) + (codes >= 0x10000)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    starts = np.maximum.accumulate(offsets[spans[:, 0]])
    return np.diff(np.concatenate([[0], starts[1:], offsets[-1:]])).astype(np.uint32)


class CausalTextDataModule(CausalDataModule, UnlabelledTextDataModule):
    """Base class of data modules of text for causal language modelling.

    Documents begin and end with special tokens (BOS or CLS, EOS or SEP) and are concatenated. Training examples are
    windows of ``max_seq_len`` tokens, which start at a random offset in each epoch; an epoch has each token once among
    those that the model predicts. In validation and test, each token is predicted once, from what the model reads when
    it generates.

    Batches are those of :class:`~perceiver_plugins.sdk.data.causal.CausalDataModule`; units are UTF-8 bytes.

    Subclasses implement :meth:`source_key` and :meth:`load_documents`.

    Args:
        target: Kind of labels: next.
        max_seq_len: Largest number of tokens that the model reads before it predicts the next.
    """

    targets: ClassVar[tuple[str, ...]] = ("next",)

    def __init__(self, target: Literal["next"] = "next", max_seq_len: int = 512, **kwargs: Any) -> None:
        # options of examples that are single documents or chunks
        super().__init__(
            max_seq_len=max_seq_len,
            truncation_side="left",
            random_train_shift=False,
            random_train_truncation=False,
            random_min_seq_len=1,
            padding_side="left",
            add_special_tokens=False,
            add_eos_token=False,
            **kwargs,
        )
        self.check_target(target)
        self.target = target

    @cached_property
    def encoder(self) -> CausalEncoder:
        """Encoder of documents."""
        return CausalEncoder(self.tokenizer)

    def make_dataset(self, columns: Mapping[str, np.ndarray], train: bool) -> TrainingWindows | ScoringWindows:
        if not columns:
            columns = {name: np.zeros(0, dtype) for name, dtype in self.encoder.columns.items()}
        sequence = TokenSequence(columns["input_ids"], columns["num_bytes"], self.encoder.begin_id)
        return self.windows(sequence, train)


class CausalPythonDocsDataModule(PythonDocs, CausalTextDataModule):
    """English text that comes with Python, for causal language modelling: reference topics and docstrings (2 MB).

    Nothing is downloaded.

    Args:
        batch_size: Examples per batch and device, in training.
    """

    def __init__(self, batch_size: int = 32, **kwargs: Any) -> None:
        super().__init__(batch_size=batch_size, **kwargs)


class CausalTextFilesDataModule(UnlabelledTextFiles, CausalTextDataModule):
    """Your own text, for causal language modelling: .txt, .jsonl, .json, .csv, .tsv and .parquet files.

    Files may be compressed, with the suffixes .gz, .xz, .bz2 or .zst. A .txt file, or any other file of UTF-8 text, is
    one document; in tables, each row is a document. Each of the flags for files takes a file, a folder (all such files
    in it), a pattern such as ``data/*.txt``, or a list of these.
    """


class StreamedWindows(DocumentStream):
    """Infinite stream of batches of windows of consecutive tokens, which start ``num_targets`` tokens apart.

    Args:
        source: As for :class:`DocumentStream`.
        column: As for :class:`DocumentStream`.
        encoder: Tokenizes the documents.
        max_seq_len: Inputs per example.
        num_targets: Labels per example, for the last inputs.
        options: Other arguments of :class:`DocumentStream`.
    """

    def __init__(
        self,
        source: datasets.IterableDataset,
        column: str,
        encoder: CausalEncoder,
        max_seq_len: int,
        num_targets: int,
        **options: Any,
    ) -> None:
        super().__init__(source, column, encoder, **options)
        self.begin_id = encoder.begin_id
        self.example_size = max_seq_len + 1
        self.example_step = self.num_targets = min(num_targets, max_seq_len)

    def make_batch(self, columns: list[np.ndarray], part: int, first: int) -> dict[str, Tensor]:
        input_ids, num_bytes = columns
        indices = np.arange(input_ids.size).reshape(input_ids.shape)
        sequence = TokenSequence(input_ids.reshape(-1), num_bytes.reshape(-1), self.begin_id)
        inputs, labels, _ = sequence.example(indices, self.num_targets)
        return {"input_ids": torch.from_numpy(inputs), "labels": torch.from_numpy(labels)}


class CausalHubTextDataModule(UnlabelledHubText, CausalTextDataModule):
    """Text for causal language modelling, from the Hugging Face hub or a local folder.

    A local folder contains a data set saved by ``save_to_disk``, or files named by their split (``train*``,
    ``valid*``, ``test*``, or folders of these names): .txt, .jsonl, .json, .csv, .tsv, .parquet, compressed
    or not.

    With ``streaming``, data is not prepared in advance: documents are read, shuffled within a buffer and tokenized
    during training. In each pass over the data, each document goes to one worker process of one device. Passes repeat
    without end, so ``trainer.max_steps`` is needed, and ``trainer.val_check_interval`` (in steps) for validation.
    Resuming reads all earlier documents again, and needs the same numbers of devices and workers.
    """

    def make_stream(
        self, source: datasets.IterableDataset, column: str, encoder: DocumentEncoder, **options: Any
    ) -> StreamedWindows:
        assert isinstance(encoder, CausalEncoder)
        return StreamedWindows(source, column, encoder, self.max_seq_len, self.stream_step, **options)

    @property
    def stream_step(self) -> int:
        """Tokens between the starts of consecutive examples of a stream."""
        return self.num_targets or self.max_seq_len

    def loading_state(self) -> dict[str, int]:
        streamed = {"num_targets": self.stream_step} if self.streaming else {}
        return {**super().loading_state(), **streamed}


class CausalWikipediaDataModule(Wikipedia, CausalHubTextDataModule):
    """English Wikipedia, all articles (20 GB of text), for causal language modelling."""


class CausalWikiTextDataModule(WikiText, CausalHubTextDataModule):
    """WikiText-103, for causal language modelling. Its rows are paragraphs; documents are articles."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.streaming:
            raise UserError("streaming: not available, as the rows of WikiText are not documents (leave it out)")

    def load_documents(self, work: Path) -> dict[str, datasets.Dataset]:
        return {split: with_articles(rows) for split, rows in super().load_documents(work).items()}


def with_articles(rows: datasets.Dataset) -> datasets.Dataset:
    """Add the columns ``first`` and ``last`` to rows of WikiText: whether a row begins or ends an article."""
    first = np.array([ARTICLE_TITLE.fullmatch(text or "") is not None for text in rows["text"][:]], dtype=bool)
    first[:1] = True
    last = np.concatenate([first[1:], [True]])[: len(first)]
    present = [name for name in ("first", "last") if name in rows.column_names]
    return rows.remove_columns(present).add_column("first", first.tolist()).add_column("last", last.tolist())


class CausalBookCorpusDataModule(BookCorpus, CausalHubTextDataModule):
    """BookCorpus, for causal language modelling: novels, one sentence per document (5 GB)."""


class CausalImdbDataModule(Imdb, CausalHubTextDataModule):
    """IMDb movie reviews, for causal language modelling, including the 50,000 without a label."""


class CausalEnwik8DataModule(Enwik8, CausalTextDataModule):
    """The first 100 MB of an English Wikipedia dump, markup included, for causal language modelling.

    The first 90 % are for training, the next 5 % for validation, the last 5 % for test. Each is one document.
    """
