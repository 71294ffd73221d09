"""Base class of models: what all architectures have in common."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from perceiver_core.adapters import AdaptedInput, Batch, InputAdapter, OutputAdapter, QueryProvider
from perceiver_core.config import ModelConfig
from perceiver_core.context import Context, context_at, context_where

Pool = Literal["mean", "none"]
"""Poolings of the latents in :meth:`Model.embed`."""


class _Prepared(NamedTuple):
    """Inputs of an architecture.

    Attributes:
        adapted: adapted input.
        queries: output queries (b or 1, o, f), or (b, p, f) for chosen positions.
        context: context at the positions of the queries.
        chosen: for a boolean mask of positions, True (b, p) at chosen positions and False at padding. Otherwise None.
    """

    adapted: AdaptedInput
    queries: Tensor
    context: Context
    chosen: Tensor | None


class Model(nn.Module):
    """Base class of models. Each subclass is an architecture, which decodes output queries from the input array.

    The ``__init__(config, input_adapter, output_adapter)`` of a subclass sets the three attributes below and builds the
    layers between the adapters. A subclass implements :meth:`compute` or the whole :meth:`forward` and, for embeddings,
    :meth:`encode`.
    """

    config: ModelConfig[Any, Any]
    """The config, a subclass of :class:`~perceiver_core.ModelConfig` whose type selects the architecture."""

    input_adapter: InputAdapter
    """Input adapter."""

    output_adapter: OutputAdapter
    """Output adapter."""

    def __init__(self) -> None:
        super().__init__()

    def compute(self, adapted: AdaptedInput, queries: Tensor) -> Tensor:
        """Compute the decoded queries, position by position, for an adapted input.

        Args:
            adapted: input array (b, m, c) and its padding mask.
            queries: output queries (b or 1, o, f).

        Returns:
            Decoded queries (b, o, f), the input of the output adapter.
        """
        raise NotImplementedError(f"{type(self).__name__}.compute")

    def forward(self, batch: Batch, positions: Tensor | None = None) -> Any:
        """Compute the output at all or some output positions.

        Args:
            batch: batch that the input adapter reads.
            positions: output positions to decode. Integers (b, p): p positions of each example. Booleans (b, o): any
                number of positions of each example. Default: all.

        Returns:
            The output adapter's output: with leading dimensions (b, o), or (b, p) for integer ``positions``; for a
            boolean mask with one leading dimension, as if the whole output were indexed by the mask.

        Raises:
            ValueError: if a boolean mask has another shape than (b, o).
        """
        adapted, queries, context, chosen = self._prepare(batch, positions)
        return self._output(self.compute(adapted, queries), context, chosen)

    def encode(self, batch: Batch) -> Tensor:
        """Compute the latents (b, n, d) of a batch, before they are decoded.

        Args:
            batch: batch that the input adapter reads.

        Raises:
            NotImplementedError: if the architecture does not define this method.
        """
        raise NotImplementedError(
            f"{type(self).__name__}: the architecture has no embeddings (its class does not define encode)"
        )

    def latent_pad_mask(self, batch: Batch) -> Tensor | None:
        """Return the padding mask (b, n) of the latents, True at padding; None (default) without padding.

        Args:
            batch: batch that the input adapter reads.
        """
        return None

    def embed(self, batch: Batch, pool: Pool = "mean") -> Tensor:
        """Compute the embedding of each example of a batch.

        Args:
            batch: batch that the input adapter reads.
            pool: "mean": the mean of the latents without padding. "none": the latents, zero at padding.

        Returns:
            (b, d), or (b, n, d) without pooling.

        Raises:
            NotImplementedError: if the architecture does not define :meth:`encode`.
            ValueError: if ``pool`` is unknown.
        """
        if pool not in get_args(Pool):
            raise ValueError(f"pool={pool!r} must be one of {', '.join(get_args(Pool))}")
        latents, pad_mask = self.encode(batch), self.latent_pad_mask(batch)
        if pad_mask is None:
            return latents.mean(dim=1) if pool == "mean" else latents
        latents = latents.masked_fill(pad_mask[..., None], 0.0)
        if pool == "none":
            return latents
        return latents.sum(dim=1) / (~pad_mask).sum(dim=1, keepdim=True).clamp(min=1)

    def _prepare(self, batch: Batch, positions: Tensor | None) -> _Prepared:
        """Adapt the input, and compute the output queries at all or some output positions, as for :meth:`forward`."""
        adapted = self.input_adapter(batch)
        context, chosen = adapted.context, None
        if positions is not None and positions.dtype == torch.bool:
            _check_mask(positions, self.output_adapter.query_provider, adapted)
            positions, chosen = mask_to_positions(positions)
        if positions is not None:
            context = context_at(context, positions)
        return _Prepared(adapted, self.output_adapter.query_provider(adapted, positions), context, chosen)

    def _output(self, decoded: Tensor, context: Context, chosen: Tensor | None = None) -> Any:
        """Apply the output adapter to decoded queries (b, o, f), or to those where ``chosen`` is True."""
        if chosen is not None:
            decoded, context = decoded[chosen], context_where(context, chosen)
        return self.output_adapter.apply_context(self.output_adapter(decoded), context)


def _check_mask(mask: Tensor, provider: QueryProvider, adapted: AdaptedInput) -> None:
    """Check that a boolean mask has the output's shape (b, o)."""
    expected = (len(adapted.x), provider(adapted).shape[1])
    if mask.shape != expected:
        raise ValueError(f"positions: a boolean mask must have the output's shape {expected}, got {tuple(mask.shape)}")


def mask_to_positions(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Convert a boolean mask to positions, padded to the longest example.

    Args:
        mask: (b, o), True at chosen positions.

    Returns:
        Positions (b, p), the chosen ones in ascending order and then others as padding; and a mask (b, p), True where a
        position was chosen.
    """
    counts = mask.sum(dim=1)
    length = int(counts.max()) if mask.shape[0] else 0
    # uint8: sorting booleans is not implemented on every device. Stable: chosen positions keep their order.
    positions = mask.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :length]
    chosen = torch.arange(length, device=mask.device)[None] < counts[:, None]
    return positions, chosen
