"""Input and output adapters of causal models of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from perceiver_core import AdaptedInput, Batch, InputAdapter, InputQueryProvider, OutputAdapter, linear
from perceiver_plugins.generation.config import NextTokenDecoderConfig, TokenEncoderConfig

EXAMPLE_LENGTH = 12
"""Tokens of an example batch. Arbitrary."""


class TokenInputAdapter(InputAdapter):
    """Token embedding without positions, which a causal model adds. Reads ``input_ids`` and ``attention_mask``.

    The embedding of a token does not depend on other tokens, as causal models require.

    Args:
        vocab_size: size of the vocabulary.
        num_input_channels: channels c of the embeddings.
        init_scale: standard deviation of the normal initialisation.
    """

    is_causal = True

    def __init__(self, vocab_size: int, num_input_channels: int, init_scale: float = 0.02):
        super().__init__(num_input_channels)
        self.token_embedding = nn.Embedding(vocab_size, num_input_channels)
        nn.init.normal_(self.token_embedding.weight, 0.0, init_scale)

    @classmethod
    def from_config(cls, config: TokenEncoderConfig) -> TokenInputAdapter:
        return cls(config.vocab_size, config.num_input_channels, config.init_scale)

    def check_data(self, data: Any) -> None:
        size, model_size = getattr(data, "vocab_size", None), self.token_embedding.num_embeddings
        if size is not None and size != model_size:
            raise ValueError(
                f"the data's vocab_size={size} does not fit the model's vocab_size={model_size} (give the data module "
                "the tokenizer of the model)"
            )

    def default_positions(self, batch: Batch) -> Tensor:
        input_ids: Tensor = batch["input_ids"]
        return torch.arange(input_ids.shape[1], device=input_ids.device)[None]

    def example_batch(self, batch_size: int, generator: torch.Generator) -> Batch:
        shape = (batch_size, EXAMPLE_LENGTH)
        input_ids = torch.randint(self.token_embedding.num_embeddings, shape, generator=generator)
        padding = torch.randint(EXAMPLE_LENGTH, (batch_size, 1), generator=generator)
        return {"input_ids": input_ids, "attention_mask": (torch.arange(EXAMPLE_LENGTH) >= padding).long()}

    def forward(self, batch: Batch) -> AdaptedInput:
        """Embed ``batch["input_ids"]`` (b, m).

        Args:
            batch: ``input_ids``, and optionally ``attention_mask`` (b, m): true or 1 at tokens, false or 0 at padding.

        Returns:
            The input array (b, m, c) and, with an attention mask, the padding mask (b, m).
        """
        attention_mask = batch.get("attention_mask")
        pad_mask = None if attention_mask is None else ~attention_mask.bool()
        return AdaptedInput(self.token_embedding(batch["input_ids"]), pad_mask)


class NextTokenOutputAdapter(OutputAdapter):
    """Output layer that predicts the token after each input.

    Args:
        embedding: token embedding of the input adapter.
        tied: share its weight.
        bias: add a bias.
        init_scale: standard deviation of the normal initialisation of a weight that is not tied.
    """

    output_name = "logits"

    def __init__(self, embedding: nn.Embedding, tied: bool = True, bias: bool = True, init_scale: float = 0.02):
        super().__init__(InputQueryProvider(embedding.embedding_dim))
        if not tied:
            embedding = nn.Embedding(embedding.num_embeddings, embedding.embedding_dim)
            nn.init.normal_(embedding.weight, 0.0, init_scale)
        self.embedding = embedding
        self.bias = nn.Parameter(torch.zeros(embedding.num_embeddings)) if bias else None

    @classmethod
    def from_config(cls, config: NextTokenDecoderConfig, input_adapter: InputAdapter) -> NextTokenOutputAdapter:
        """Create the output layer for the vocabulary of an input adapter.

        Raises:
            ValueError: if the input adapter is not for tokens.
        """
        if not isinstance(input_adapter, TokenInputAdapter):
            name = type(input_adapter).__name__
            raise ValueError(f"NextTokenDecoderConfig: needs an input adapter of tokens, got {name} (choose 'tokens')")
        return cls(input_adapter.token_embedding, config.tied, config.bias, config.init_scale)

    def forward(self, decoded: Tensor) -> Tensor:
        """Map the latents (..., d) to logits (..., vocabulary)."""
        return linear(decoded, self.embedding.weight, self.bias)

    def serve(self, model: Any, batch: Batch) -> Mapping[str, Tensor]:
        """Compute ``logits`` (b, o, vocabulary) of the tokens after the last inputs."""
        return {self.output_name: model(batch)}
