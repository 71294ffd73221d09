"""Adapters between token sequences and a Perceiver."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

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


class TextInputAdapter(InputAdapter):
    """Embeds tokens and adds learned positions. Reads ``input_ids`` and ``attention_mask`` of a batch.

    Args:
        vocab_size: number of tokens.
        max_seq_len: the longest sequence.
        num_input_channels: channels of the embeddings.
        init_scale: standard deviation of the normal initialisation.
    """

    def __init__(self, vocab_size: int, max_seq_len: int, num_input_channels: int, init_scale: float = 0.02):
        super().__init__(num_input_channels)
        self.max_seq_len = max_seq_len
        self.token_embedding = nn.Embedding(vocab_size, num_input_channels)
        self.position_embedding = nn.Embedding(max_seq_len, num_input_channels)
        nn.init.normal_(self.token_embedding.weight, 0.0, init_scale)
        nn.init.normal_(self.position_embedding.weight, 0.0, init_scale)

    @classmethod
    def from_config(cls, config: TextEncoderConfig) -> TextInputAdapter:
        return cls(config.vocab_size, config.max_seq_len, config.num_input_channels, config.init_scale)

    def position_layout(self) -> PositionLayout:
        return PositionLayout(self.position_embedding.weight, self.position_embedding.weight)

    def check_data(self, data: Any) -> None:
        table = self.token_embedding
        for name, ours, fits in (
            ("vocab_size", table.num_embeddings, operator.eq),
            ("max_seq_len", self.max_seq_len, operator.le),
        ):
            theirs = getattr(data, name, None)
            if theirs is not None and not fits(theirs, ours):
                raise ValueError(
                    f"the data's {name}={theirs} does not fit the model's {name}={ours}; "
                    "give the data module the tokenizer and length that the model was made for"
                )

    def default_positions(self, batch: Batch) -> Tensor:
        input_ids: Tensor = batch["input_ids"]
        return torch.arange(input_ids.shape[1], device=input_ids.device)[None]

    def example_batch(self, batch_size: int, generator: torch.Generator) -> Batch:
        shape = (batch_size, self.max_seq_len)
        input_ids = torch.randint(self.token_embedding.num_embeddings, shape, generator=generator)
        lengths = torch.randint(1, self.max_seq_len + 1, (batch_size, 1), generator=generator)
        return {"input_ids": input_ids, "attention_mask": (torch.arange(self.max_seq_len) < lengths).long()}

    def forward(self, batch: Batch) -> AdaptedInput:
        """Embeds ``batch["input_ids"]`` (b, n).

        Args:
            batch: ``attention_mask`` (b, n), if there, is true or 1 at real tokens and false or 0 at padding.

        Raises:
            ValueError: if the sequences are longer than ``max_seq_len``.
        """
        input_ids: Tensor = batch["input_ids"]
        length = input_ids.shape[1]
        if length > self.max_seq_len:
            raise ValueError(f"input of length {length} is longer than max_seq_len={self.max_seq_len}")
        attention_mask = batch.get("attention_mask")
        positions = self.position_embedding(torch.arange(length, device=input_ids.device))
        return AdaptedInput(
            self.token_embedding(input_ids) + positions,
            None if attention_mask is None else ~attention_mask.bool(),
        )


class TokenOutputAdapter(OutputAdapter):
    """Base class of adapters that predict tokens."""

    output_name = "logits"

    def serve(self, model: Any, batch: Batch) -> Mapping[str, Tensor]:
        """Compute ``logits`` (b, n, vocabulary): for a tokenized input of length n, otherwise for all n positions."""
        return {self.output_name: model(batch, positions=model.input_adapter.default_positions(batch))}


class TiedTextOutputAdapter(TokenOutputAdapter):
    """Predicts tokens with the weights of the input's embedding and a bias of its own.

    Args:
        query_provider: output queries, as wide as the embedding.
        embedding: the input adapter's token embedding.
    """

    def __init__(self, query_provider: QueryProvider, embedding: nn.Embedding):
        super().__init__(query_provider)
        self.embedding = embedding
        self.bias = nn.Parameter(torch.zeros(embedding.num_embeddings))

    def forward(self, decoded: Tensor) -> Tensor:
        """Returns logits (..., vocabulary) for the decoder's output (..., f)."""
        return linear(decoded, self.embedding.weight, self.bias)


class TextOutputAdapter(TokenOutputAdapter):
    """Predicts tokens with a linear layer of its own.

    Args:
        query_provider: output queries.
        vocab_size: number of tokens.
        init_scale: standard deviation of the normal initialisation.
    """

    def __init__(self, query_provider: QueryProvider, vocab_size: int, init_scale: float = 0.02):
        super().__init__(query_provider)
        self.linear = Linear(query_provider.num_query_channels, vocab_size)
        nn.init.normal_(self.linear.weight, 0.0, init_scale)
        nn.init.zeros_(self.linear.bias)

    @classmethod
    def from_config(cls, config: TextDecoderConfig, input_adapter: InputAdapter) -> OutputAdapter:
        """Builds the tied adapter where ``config.num_output_query_channels`` is None, otherwise this one.

        Raises:
            ValueError: if weights are to be tied and the input adapter embeds no tokens, or another number of them.
        """
        if config.num_output_query_channels is not None:
            queries = TrainableQueryProvider(config.max_seq_len, config.num_output_query_channels, config.init_scale)
            return cls(queries, config.vocab_size, config.init_scale)

        if not isinstance(input_adapter, TextInputAdapter):
            raise ValueError(
                "TextDecoderConfig.num_output_query_channels=None: ties the output layer to the input's embedding, "
                f"which {type(input_adapter).__name__} does not have; set a number of channels"
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
        """Returns logits (..., vocabulary) for the decoder's output (..., f)."""
        return self.linear(decoded)
