"""Text that is too large to prepare: tokenised, cut and masked while it is read."""

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
from perceiver_plugins.text.data.chunks import Collator, truncated_length
from perceiver_plugins.text.data.encoding import DocumentEncoder
from perceiver_plugins.text.data.masking import Masker

READ = 64
"""Documents that are read and tokenised together."""


def fingerprint(text: str) -> bytes:
    """Tells a document from all others."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class StreamedChunks(IterableDataset[dict[str, Tensor]]):
    """An endless stream of batches of masked chunks, shared between ranks and the worker processes of each.

    In each pass over the documents, every document goes to exactly one worker of one rank: by files (shards)
    if there are at least as many as workers in all, otherwise in turn. Each pass shuffles anew. The stream
    has no end, as ranks that come to theirs at different times would wait for each other for ever.

    Where it starts is :attr:`start`, the number of batches that its rank has had. All up to there is read
    again, and left out; it goes on exactly if the numbers of ranks and workers are the same as before. Resuming
    therefore costs the reading and tokenising of all documents so far, without the training.

    Args:
        source: The documents.
        column: Name of the column with the text.
        encoder: Makes tokens of them.
        masker: Chooses what is to be predicted.
        collator: Makes batches.
        max_seq_len: Tokens per chunk.
        min_seq_len: Shortest length for ``truncate``.
        truncate: Shorten chunks to a length drawn by chance.
        seed: Decides order, lengths and masks.
        shuffle_buffer: Documents that are held to draw the next one from.
        held_out: Fingerprints of documents to leave out, those for validation.
        batch_size: Examples per batch.
        rank: This process among those that share the stream.
        num_replicas: How many these are.
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
        """The documents of one of ``parts`` parts in one pass over all of them."""
        source, turns = self.source, parts
        if source.num_shards >= parts:
            source, turns = source.shard(num_shards=parts, index=part), 1
        # the same seed in all processes, so that taking turns means the same to all
        seed = int(np.random.SeedSequence([self.seed % 2**64, epoch]).generate_state(1)[0])
        source = source.shuffle(seed=seed, buffer_size=self.shuffle_buffer)
        place = 0
        # in batches, because single rows would be shared between workers a second time by `datasets` itself
        for batch in source.iter(batch_size=READ):
            for text in batch[self.column]:
                mine = turns == 1 or place % turns == part
                place += 1
                if mine and text and not (self.held_out and fingerprint(text) in self.held_out):
                    yield text

    def chunks(self, part: int, parts: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The chunks (tokens, word parts) of a part, pass after pass; the rest of one pass begins the next."""
        epoch = 0
        ids, words = np.zeros(0, np.int64), np.zeros(0, np.uint8)
        while True:
            documents = self.documents(epoch, part, parts)
            empty = True
            while texts := list(islice(documents, READ)):
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
                raise DataError(f"too few documents to stream to {parts} processes: use fewer workers, or no streaming")
            epoch += 1

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        worker = get_worker_info()
        workers = worker.num_workers if worker else 1
        # Workers deliver batches in turn, beginning with the first: after a restart, that one is to be the
        # one whose turn it was, and each leaves out as many as it had delivered.
        number = ((worker.id if worker else 0) + self.start) % workers
        delivered = self.start // workers + (number < self.start % workers)
        part, parts = self.rank * workers + number, self.num_replicas * workers
        chunks = self.chunks(part, parts)
        for batch in itertools.count():
            input_ids, word_parts = map(np.stack, zip(*islice(chunks, self.batch_size), strict=True))
            if batch >= delivered:
                yield self._masked(input_ids, word_parts, part, batch * self.batch_size)

    def _masked(self, input_ids: np.ndarray, word_parts: np.ndarray, part: int, first: int) -> dict[str, Tensor]:
        """A batch of the chunks (b, max_seq_len) of a part, the first of which has the number ``first``."""
        size, longest = input_ids.shape
        chances = [example_rng(self.seed, part, first + number) for number in range(size)]
        lengths = np.full(size, longest)
        if self.truncate:
            lengths = np.array([truncated_length(self.min_seq_len, longest, chance) for chance in chances])
        inside = np.arange(lengths.max()) < lengths[:, None]
        input_ids, word_parts = (values[:, : lengths.max()] for values in (input_ids, word_parts))
        shown, labels = self.masker(input_ids, word_parts, inside, chances)
        return self.collator(shown, inside, labels)


class StreamLoader(DataLoader[Any]):
    """A DataLoader whose stream goes on where training is, each time that it is iterated.

    Args:
        stream: The stream.
        progress: Returns the number of batches that were trained on.
        options: The DataLoader's own, but for those of batches, which the stream makes itself.
    """

    def __init__(self, stream: StreamedChunks, progress: Callable[[], int], **options: Any) -> None:
        super().__init__(stream, batch_size=None, **options)
        self.stream = stream
        self.progress = progress

    def __iter__(self) -> Any:
        self.stream.start = self.progress()
        return super().__iter__()
