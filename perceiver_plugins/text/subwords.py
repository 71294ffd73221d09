"""Embeddings of the character n-grams of tokens."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

SUBWORD_LENGTHS = (2, 3, 4)
"""Characters of an n-gram, with those that mark the ends of a token. Up to four, as in the baseline of
``python -m benchmarks own-data``."""

MAX_SUBWORDS = 32
"""Most n-grams of a token: all of a token of up to ten characters, the first of longer ones. Arbitrary."""

NO_SUBWORD = 0
"""Bucket without an embedding."""


class SubwordEmbedding(nn.Module):
    """Sum of the embeddings of a token's character n-grams, by their hash (Bojanowski et al. 2017, arXiv 1607.04606).

    Words with a common stem or ending share n-grams, so that rare words are learned from others. The n-grams of each
    token are a buffer: :meth:`read` computes them from a tokenizer, and checkpoints contain them.

    Args:
        vocab_size: size of the vocabulary.
        num_buckets: size of the table of hashed n-grams.
        num_channels: channels c of an embedding.
    """

    buckets: Tensor

    def __init__(self, vocab_size: int, num_buckets: int, num_channels: int):
        super().__init__()
        self.embedding = nn.Embedding(num_buckets, num_channels, padding_idx=NO_SUBWORD)
        nn.init.zeros_(self.embedding.weight)  # n-grams that training has not seen must not add noise
        self.register_buffer("buckets", torch.full((vocab_size, MAX_SUBWORDS), NO_SUBWORD))

    @property
    def has_read(self) -> bool:
        """True if the n-grams of the tokens are known."""
        return bool((self.buckets != NO_SUBWORD).any())

    def read(self, tokenizer: Any) -> None:
        """Compute the n-grams of the tokens.

        Args:
            tokenizer: a tokenizer of transformers. Its special tokens have no n-grams.
        """
        special = set(tokenizer.all_special_ids)
        ids = [index for index in range(len(self.buckets)) if index not in special]
        for index, token in zip(ids, tokenizer.convert_ids_to_tokens(ids), strict=True):
            found = [bucket_of(ngram, self.embedding.num_embeddings) for ngram in subwords(token or "")]
            self.buckets[index, : len(found)] = torch.tensor(found, dtype=torch.long)

    def forward(self, input_ids: Tensor, dropout: float = 0.0) -> Tensor:
        """Embed the n-grams of tokens (b, m).

        Args:
            input_ids: tokens (b, m).
            dropout: probability of leaving out an n-gram. Default: 0.

        Returns:
            Sums of embeddings (b, m, c).
        """
        buckets = self.buckets[input_ids]
        if dropout:
            dropped = torch.rand(buckets.shape, device=buckets.device) < dropout
            buckets = buckets.masked_fill(dropped, NO_SUBWORD)
        weight = self.embedding.weight
        sums = embedding_bag(buckets.flatten(0, -2), weight, mode="sum", padding_idx=NO_SUBWORD)
        return sums.view(*input_ids.shape, -1)


def subwords(token: str) -> Iterator[str]:
    """Yield up to :data:`MAX_SUBWORDS` lower-cased character n-grams of a token, the short ones first."""
    marked = f"<{token.lower()}>"
    ngrams = [marked[start : start + n] for n in SUBWORD_LENGTHS for start in range(len(marked) - n + 1)]
    yield from ngrams[:MAX_SUBWORDS]


def bucket_of(ngram: str, num_buckets: int) -> int:
    """Return the bucket of an n-gram; it depends on neither the machine nor the process."""
    return 1 + zlib.crc32(ngram.encode()) % (num_buckets - 1)
