"""Input and output adapters for token sequences."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from perceiver_core import (
    AdaptedInput,
    Batch,
    InputAdapter,
    Linear,
    OutputAdapter,
    PositionLayout,
    QueryProvider,
    TrainableQueryProvider,
    linear,
)
from perceiver_plugins.text.config import TextDecoderConfig, TextEncoderConfig
from perceiver_plugins.text.subwords import SubwordEmbedding

HASH_MULTIPLIER, HASH_MODULUS = 1_000_003, 2**31 - 1
"""Constants of the polynomial hash of n-grams. Arbitrary primes whose products fit into 64 bits."""


class NgramEmbedding(nn.Module):
    """Sum of the embeddings of the n-grams that end at a token, by their hash (Joulin et al. 2017, arXiv 1607.01759).

    An n-gram that begins before the sequence has a hash of its own, so that first words are recognised.

    Args:
        max_ngram_length: longest n-gram, of at least 2 tokens.
        num_buckets: size of the table, which all lengths share.
        num_channels: channels c of an embedding.
    """

    def __init__(self, max_ngram_length: int, num_buckets: int, num_channels: int):
        super().__init__()
        self.max_ngram_length = max_ngram_length
        self.embedding = nn.Embedding(num_buckets, num_channels)
        nn.init.zeros_(self.embedding.weight)  # n-grams that training has not seen must not add noise

    def forward(self, input_ids: Tensor, pad_mask: Tensor | None = None, keep: Tensor | None = None) -> Tensor:
        """Embed the n-grams of tokens (b, m).

        Args:
            input_ids: tokens (b, m).
            pad_mask: padding mask (b, m), True at padding. Default: no padding.
            keep: tokens (b, m) to keep; n-grams with another token are left out. Default: all.

        Returns:
            Sums of embeddings (b, m, c).
        """
        # 0 before the sequence and at padding, so that the side of the padding has no effect.
        tokens = input_ids + 1 if pad_mask is None else (input_ids + 1).masked_fill(pad_mask, 0)
        hashes, total = tokens, torch.zeros((), device=input_ids.device)
        whole = keep = torch.ones_like(input_ids, dtype=torch.bool) if keep is None else keep
        for length in range(2, self.max_ngram_length + 1):
            tokens = pad(tokens[:, :-1], (1, 0))
            hashes = (hashes * HASH_MULTIPLIER + tokens + length) % HASH_MODULUS
            keep = pad(keep[:, :-1], (1, 0), value=True)
            whole = whole & keep
            total = total + self.embedding(hashes % self.embedding.num_embeddings) * whole[..., None]
        return total


class TextInputAdapter(InputAdapter):
    """Token embedding plus learned position embedding. Reads ``input_ids`` and ``attention_mask`` of a batch.

    Args:
        vocab_size: size of the vocabulary.
        max_seq_len: length of the longest sequence.
        num_input_channels: channels c of the embeddings.
        init_scale: standard deviation of the normal initialisation.
        max_ngram_length: longest n-gram of tokens with a hashed embedding. 1: none.
        num_ngram_buckets: size of the table of hashed n-grams.
        token_dropout: probability of hiding a token in training: its embedding and those of its n-grams are zero.
            Subwords are hidden independently, with the same probability.
        num_subword_buckets: size of the table of hashed character n-grams of tokens. 0: none.
    """

    def __init__(
        self,
        vocab_size: int,
        max_seq_len: int,
        num_input_channels: int,
        init_scale: float = 0.02,
        max_ngram_length: int = 1,
        num_ngram_buckets: int = 2**16,
        token_dropout: float = 0.0,
        num_subword_buckets: int = 0,
    ):
        super().__init__(num_input_channels)
        self.max_seq_len = max_seq_len
        self.token_dropout = token_dropout
        self.token_embedding = nn.Embedding(vocab_size, num_input_channels)
        self.position_embedding = nn.Embedding(max_seq_len, num_input_channels)
        nn.init.normal_(self.token_embedding.weight, 0.0, init_scale)
        nn.init.normal_(self.position_embedding.weight, 0.0, init_scale)
        self.ngram_embedding = (
            NgramEmbedding(max_ngram_length, num_ngram_buckets, num_input_channels) if max_ngram_length > 1 else None
        )
        self.subword_embedding = (
            SubwordEmbedding(vocab_size, num_subword_buckets, num_input_channels) if num_subword_buckets else None
        )

    @classmethod
    def from_config(cls, config: TextEncoderConfig) -> TextInputAdapter:
        return cls(
            config.vocab_size,
            config.max_seq_len,
            config.num_input_channels,
            config.init_scale,
            config.max_ngram_length,
            config.num_ngram_buckets,
            config.token_dropout,
            config.num_subword_buckets,
        )

    def position_layout(self) -> PositionLayout:
        return PositionLayout(self.position_embedding.weight, self.position_embedding.weight)

    def check_data(self, data: Any) -> None:
        """Check vocabulary and length. A new model with subwords reads them from the tokenizer of the data."""
        for name, model_value, fits in (
            ("vocab_size", self.token_embedding.num_embeddings, operator.eq),
            ("max_seq_len", self.max_seq_len, operator.le),
        ):
            data_value = getattr(data, name, None)
            if data_value is not None and not fits(data_value, model_value):
                raise ValueError(
                    f"the data's {name}={data_value} does not fit the model's {name}={model_value} "
                    "(give the data module the tokenizer and max_seq_len of the model)"
                )
        if self.subword_embedding is not None and not self.subword_embedding.has_read:
            tokenizer = getattr(data, "tokenizer", None)
            if tokenizer is None:
                raise ValueError(
                    "num_subword_buckets: the data has no tokenizer, whose tokens have subwords (set it to 0)"
                )
            self.subword_embedding.read(tokenizer)

    def default_positions(self, batch: Batch) -> Tensor:
        input_ids: Tensor = batch["input_ids"]
        return torch.arange(input_ids.shape[1], device=input_ids.device)[None]

    def example_batch(self, batch_size: int, generator: torch.Generator) -> Batch:
        shape = (batch_size, self.max_seq_len)
        input_ids = torch.randint(self.token_embedding.num_embeddings, shape, generator=generator)
        lengths = torch.randint(1, self.max_seq_len + 1, (batch_size, 1), generator=generator)
        return {"input_ids": input_ids, "attention_mask": (torch.arange(self.max_seq_len) < lengths).long()}

    def forward(self, batch: Batch) -> AdaptedInput:
        """Embed ``batch["input_ids"]`` (b, m).

        Args:
            batch: ``input_ids``, and optionally ``attention_mask`` (b, m): true or 1 at tokens, false or 0 at padding.

        Returns:
            The input array (b, m, c) and, with an attention mask, the padding mask (b, m).

        Raises:
            ValueError: if the sequences are longer than ``max_seq_len``.
        """
        input_ids: Tensor = batch["input_ids"]
        length = input_ids.shape[1]
        if length > self.max_seq_len:
            raise ValueError(f"input of length {length} is longer than max_seq_len={self.max_seq_len}")
        attention_mask = batch.get("attention_mask")
        pad_mask = None if attention_mask is None else ~attention_mask.bool()
        tokens, keep = self.token_embedding(input_ids), None
        if self.training and self.token_dropout:
            keep = torch.rand(input_ids.shape, device=input_ids.device) >= self.token_dropout
            tokens = tokens * keep[..., None]
        if self.ngram_embedding is not None:
            tokens = tokens + self.ngram_embedding(input_ids, pad_mask, keep)
        if self.subword_embedding is not None:
            tokens = tokens + self.subword_embedding(input_ids, self.token_dropout if self.training else 0.0)
        return AdaptedInput(tokens + self.position_embedding(torch.arange(length, device=input_ids.device)), pad_mask)


class TokenOutputAdapter(OutputAdapter):
    """Base class of output adapters that predict tokens."""

    output_name = "logits"

    def serve(self, model: Any, batch: Batch) -> Mapping[str, Tensor]:
        """Compute ``logits``: (b, m, vocabulary) for a tokenized input, (b, o, vocabulary) for other inputs."""
        return {self.output_name: model(batch, positions=model.input_adapter.default_positions(batch))}


class TiedTextOutputAdapter(TokenOutputAdapter):
    """Output layer with its weight tied to the token embedding, and a bias.

    Args:
        query_provider: output queries with as many channels as the embedding.
        embedding: token embedding of the input adapter.
    """

    def __init__(self, query_provider: QueryProvider, embedding: nn.Embedding):
        super().__init__(query_provider)
        self.embedding = embedding
        self.bias = nn.Parameter(torch.zeros(embedding.num_embeddings))

    def forward(self, decoded: Tensor) -> Tensor:
        """Map the decoder output (..., f) to logits (..., vocabulary)."""
        return linear(decoded, self.embedding.weight, self.bias)


class TextOutputAdapter(TokenOutputAdapter):
    """Output layer with its own weight.

    Args:
        query_provider: output queries.
        vocab_size: size of the vocabulary.
        init_scale: standard deviation of the normal initialisation.
    """

    def __init__(self, query_provider: QueryProvider, vocab_size: int, init_scale: float = 0.02):
        super().__init__(query_provider)
        self.linear = Linear(query_provider.num_query_channels, vocab_size)
        nn.init.normal_(self.linear.weight, 0.0, init_scale)
        nn.init.zeros_(self.linear.bias)

    @classmethod
    def from_config(cls, config: TextDecoderConfig, input_adapter: InputAdapter) -> OutputAdapter:
        """Create a :class:`TiedTextOutputAdapter` if ``num_output_query_channels`` is None, otherwise this class.

        Raises:
            ValueError: if weights are tied, and the input adapter is not for text or has another vocabulary size.
        """
        if config.num_output_query_channels is not None:
            queries = TrainableQueryProvider(config.max_seq_len, config.num_output_query_channels, config.init_scale)
            return cls(queries, config.vocab_size, config.init_scale)

        if not isinstance(input_adapter, TextInputAdapter):
            raise ValueError(
                "TextDecoderConfig.num_output_query_channels=None: ties the output layer to the input's embedding, "
                f"which {type(input_adapter).__name__} does not have (set a number of channels)"
            )
        embedding = input_adapter.token_embedding
        if embedding.num_embeddings != config.vocab_size:
            raise ValueError(
                f"TextDecoderConfig.vocab_size={config.vocab_size}: must equal the encoder's, "
                f"{embedding.num_embeddings}, as the output layer is tied to its embedding"
            )
        queries = TrainableQueryProvider(config.max_seq_len, embedding.embedding_dim, config.init_scale)
        return TiedTextOutputAdapter(queries, embedding)

    def forward(self, decoded: Tensor) -> Tensor:
        """Map the decoder output (..., f) to logits (..., vocabulary)."""
        return self.linear(decoded)
