"""Streaming of text that is too large to prepare: tokenized, chunked and masked on the fly."""

from __future__ import annotations

import hashlib
import itertools
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


class StreamedChunks(IterableDataset[dict[str, Tensor]]):
    """Infinite stream of batches of masked chunks, shared by ranks and their worker processes.

    In each pass over the documents, every document goes to exactly one worker of one rank: by shard if there are at
    least as many shards as workers in all, otherwise round-robin. Each pass has its own order. The stream is infinite
    because ranks whose streams ended at different steps would wait for each other forever.

    The stream starts after :attr:`start` batches of its rank. Documents before are read again and skipped, so that
    resuming costs the reading and tokenization of all earlier documents. It is exact if the numbers of ranks and
    workers are unchanged.

    Args:
        source: The documents.
        column: Name of the column with the text.
        encoder: Tokenizes the documents.
        masker: Chooses and masks the tokens to predict.
        collator: Makes batches.
        max_seq_len: Tokens per chunk.
        min_seq_len: Shortest length for ``truncate``.
        truncate: Shorten chunks to a random length.
        seed: Seed of order, lengths and masks.
        shuffle_buffer: Size of the shuffle buffer in documents.
        held_out: Fingerprints of validation documents, which are skipped.
        batch_size: Examples per batch.
        rank: Index of this process among those that share the stream.
        num_replicas: Number of processes that share the stream.
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
        self.masker = masker
        self.collator = collator
        self.max_seq_len = max_seq_len
        self.min_seq_len = min_seq_len
        self.truncate = truncate
        self.seed = seed
        self.shuffle_buffer = shuffle_buffer
        self.held_out = held_out
        self.batch_size = batch_size
        self.rank = rank
        self.num_replicas = num_replicas
        self.start = 0

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

    def chunks(self, part: int, parts: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the chunks (tokens, word parts) of a part in all passes; tokens left over start the next pass."""
        epoch = 0
        ids, words = np.zeros(0, np.int64), np.zeros(0, np.uint8)
        while True:
            documents = self.documents(epoch, part, parts)
            empty = True
            while texts := list(islice(documents, DOCUMENTS_PER_BATCH)):
                empty = False
                encoded = self.encoder({"text": texts})
                ids = np.concatenate([ids, *encoded["input_ids"]])
                words = np.concatenate([words, *encoded["word_parts"]])
                whole = len(ids) // self.max_seq_len * self.max_seq_len
                for begin in range(0, whole, self.max_seq_len):
                    end = begin + self.max_seq_len
                    yield ids[begin:end], words[begin:end]
                ids, words = ids[whole:], words[whole:]
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
            input_ids, word_parts = map(np.stack, zip(*islice(chunks, self.batch_size), strict=True))
            if batch >= delivered:
                yield self._mask(input_ids, word_parts, part, batch * self.batch_size)

    def _mask(self, input_ids: np.ndarray, word_parts: np.ndarray, part: int, first: int) -> dict[str, Tensor]:
        """Make a batch of chunks (b, max_seq_len) of a part, of which the first has the index ``first``."""
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

    def __init__(self, stream: StreamedChunks, progress: Callable[[], int], **options: Any) -> None:
        super().__init__(stream, batch_size=None, **options)
        self.stream = stream
        self.progress = progress

    def __iter__(self) -> Any:
        self.stream.start = self.progress()
        return super().__iter__()
