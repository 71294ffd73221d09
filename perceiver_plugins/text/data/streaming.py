"""Streaming of text that is too large to prepare: tokenized and cut into examples on the fly."""

from __future__ import annotations

import hashlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import datasets
import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from perceiver_plugins.sdk.data.loading import example_rng
from perceiver_plugins.sdk.errors import DataError
from perceiver_plugins.text.data.chunks import Collator, draw_length
from perceiver_plugins.text.data.encoding import DocumentEncoder
from perceiver_plugins.text.data.masking import Masker

DOCUMENTS_PER_BATCH = 64
"""Documents that are read and tokenized together; arbitrary."""


def fingerprint(text: str) -> bytes:
    """Hash a document to 16 bytes that identify it."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class DocumentStream(IterableDataset[dict[str, Tensor]], ABC):
    """Infinite stream of batches of encoded documents, shared by ranks and their worker processes.

    In each pass over the documents, every document goes to exactly one worker of one rank: by shard if there are at
    least as many shards as workers in all, otherwise round-robin. Each pass has its own order. The stream is infinite
    because ranks whose streams ended at different steps would wait for each other forever.

    The stream starts after :attr:`start` batches of its rank. Documents before are read again and skipped, so that
    resuming costs the reading and tokenization of all earlier documents. It is exact if the numbers of ranks and
    workers are unchanged.

    Subclasses set :attr:`example_size` and :attr:`example_step`, and implement :meth:`make_batch`.

    Args:
        source: The documents.
        column: Name of the column with the text.
        encoder: Tokenizes the documents.
        seed: Seed of the order.
        shuffle_buffer: Size of the shuffle buffer in documents.
        held_out: Fingerprints of validation documents, which are skipped.
        batch_size: Examples per batch.
        rank: Index of this process among those that share the stream.
        num_replicas: Number of processes that share the stream.
    """

    example_size: int
    """Tokens per example."""

    example_step: int
    """Tokens between the starts of consecutive examples."""

    def __init__(
        self,
        source: datasets.IterableDataset,
        column: str,
        encoder: DocumentEncoder,
        seed: int = 0,
        shuffle_buffer: int = 1000,
        held_out: frozenset[bytes] = frozenset(),
        batch_size: int = 1,
        rank: int = 0,
        num_replicas: int = 1,
    ) -> None:
        self.source = source
        self.column = column
        self.encoder = encoder
        self.seed = seed
        self.shuffle_buffer = shuffle_buffer
        self.held_out = held_out
        self.batch_size = batch_size
        self.rank = rank
        self.num_replicas = num_replicas
        self.start = 0

    @abstractmethod
    def make_batch(self, columns: list[np.ndarray], part: int, first: int) -> dict[str, Tensor]:
        """Make a batch.

        Args:
            columns: The encoder's columns, each (b, example_size).
            part: The part that the examples belong to.
            first: Index of the first example among those of the part.
        """

    def documents(self, epoch: int, part: int, parts: int) -> Iterator[str]:
        """Yield the documents of one of ``parts`` parts in one pass over the data."""
        source, stride = self.source, parts
        if source.num_shards >= parts:
            source, stride = source.shard(num_shards=parts, index=part), 1
        # the same seed in all processes, so that all see the same order for the round-robin
        seed = int(np.random.SeedSequence([self.seed % 2**64, epoch]).generate_state(1)[0])
        source = source.shuffle(seed=seed, buffer_size=self.shuffle_buffer)
        index = 0
        # in batches, because `datasets` would distribute single rows among workers a second time
        for batch in source.iter(batch_size=DOCUMENTS_PER_BATCH):
            for text in batch[self.column]:
                selected = stride == 1 or index % stride == part
                index += 1
                if selected and text and not (self.held_out and fingerprint(text) in self.held_out):
                    yield text

    def chunks(self, part: int, parts: int) -> Iterator[tuple[np.ndarray, ...]]:
        """Yield the encoder's columns, each (example_size,), of the examples of a part in all passes.

        Tokens left over start the next pass.
        """
        epoch = 0
        rest = [np.zeros(0, np.dtype(dtype)) for dtype in self.encoder.columns.values()]
        while True:
            documents = self.documents(epoch, part, parts)
            empty = True
            while texts := list(islice(documents, DOCUMENTS_PER_BATCH)):
                empty = False
                encoded = self.encoder({"text": texts})
                rest = [np.concatenate([left, *encoded[name]]) for name, left in zip(encoded, rest, strict=True)]
                begin = 0
                while begin + self.example_size <= len(rest[0]):
                    yield tuple(column[begin : begin + self.example_size] for column in rest)
                    begin += self.example_step
                rest = [column[begin:] for column in rest]
            if empty:
                raise DataError(
                    f"streaming: too few documents for {parts} processes (lower num_workers, or leave out streaming)"
                )
            epoch += 1

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        worker = get_worker_info()
        workers = worker.num_workers if worker else 1
        # The loader takes batches from workers in turn, starting with worker 0. When resuming, that worker continues
        # the share of the worker whose turn it was, and each skips the batches that its share has delivered.
        share = ((worker.id if worker else 0) + self.start) % workers
        delivered = self.start // workers + (share < self.start % workers)
        part, parts = self.rank * workers + share, self.num_replicas * workers
        chunks = self.chunks(part, parts)
        for batch in itertools.count():
            columns = [np.stack(column) for column in zip(*islice(chunks, self.batch_size), strict=True)]
            if batch >= delivered:
                yield self.make_batch(columns, part, batch * self.batch_size)


class StreamedChunks(DocumentStream):
    """Infinite stream of batches of masked chunks.

    Args:
        source: As for :class:`DocumentStream`.
        column: As for :class:`DocumentStream`.
        encoder: As for :class:`DocumentStream`.
        masker: Chooses and masks the tokens to predict.
        collator: Makes batches.
        max_seq_len: Tokens per chunk.
        min_seq_len: Shortest length for ``truncate``.
        truncate: Shorten chunks to a random length.
        options: Other arguments of :class:`DocumentStream`. The seed is also that of lengths and masks.
    """

    def __init__(
        self,
        source: datasets.IterableDataset,
        column: str,
        encoder: DocumentEncoder,
        masker: Masker,
        collator: Collator,
        max_seq_len: int,
        min_seq_len: int = 1,
        truncate: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(source, column, encoder, **options)
        self.masker = masker
        self.collator = collator
        self.example_size = self.example_step = max_seq_len
        self.min_seq_len = min_seq_len
        self.truncate = truncate

    def make_batch(self, columns: list[np.ndarray], part: int, first: int) -> dict[str, Tensor]:
        input_ids, word_parts = columns
        size, longest = input_ids.shape
        rngs = [example_rng(self.seed, part, first + index) for index in range(size)]
        lengths = np.full(size, longest)
        if self.truncate:
            lengths = np.array([draw_length(self.min_seq_len, longest, rng) for rng in rngs])
        inside = np.arange(lengths.max()) < lengths[:, None]
        input_ids, word_parts = (values[:, : lengths.max()] for values in (input_ids, word_parts))
        masked_ids, labels = self.masker(input_ids, word_parts, inside, rngs)
        return self.collator(masked_ids, inside, labels)


class StreamLoader(DataLoader[Any]):
    """DataLoader whose stream resumes at the current training step at each iteration.

    Args:
        stream: The stream.
        progress: Returns the number of batches trained on.
        options: Arguments of the DataLoader, except those of batches, which the stream makes.
    """

    def __init__(self, stream: DocumentStream, progress: Callable[[], int], **options: Any) -> None:
        super().__init__(stream, batch_size=None, **options)
        self.stream = stream
        self.progress = progress

    def __iter__(self) -> Any:
        self.stream.start = self.progress()
        return super().__iter__()
