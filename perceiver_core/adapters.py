"""Adapters: the contract between a generic Perceiver and a modality or task.

A plugin subclasses :class:`InputAdapter` or :class:`OutputAdapter`, adds its fields to a subclass of
:class:`~perceiver_core.config.EncoderConfig` or :class:`~perceiver_core.config.DecoderConfig`, and registers the two
under a name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from perceiver_core.deprecated import InputPositionHooks, QueryPositionHooks
from perceiver_core.position_layout import PositionLayout

Batch = Mapping[str, Any]
"""A batch of a data loader: tensors by the names that Hugging Face uses (``input_ids``, ``pixel_values``, ...)."""


class AdaptedInput(NamedTuple):
    """Output of an input adapter.

    Attributes:
        x: input array (b, m, c), position encodings included.
        pad_mask: padding mask (b, m), True at padding. Default: no padding.
    """

    x: Tensor
    pad_mask: Tensor | None = None


class InputAdapter(InputPositionHooks, nn.Module):
    """Base class of modules that map one modality's entries of a batch to the input array of the encoder.

    A subclass implements :meth:`from_config` and :meth:`forward`, and :meth:`position_layout` if it has positions.

    Args:
        num_input_channels: input channels c, of the array that :meth:`forward` returns.
    """

    def __init__(self, num_input_channels: int):
        super().__init__()
        self.num_input_channels = num_input_channels

    @classmethod
    def from_config(cls, config: Any) -> InputAdapter:
        """Build the adapter from its own subclass of :class:`~perceiver_core.config.EncoderConfig`."""
        raise NotImplementedError(f"{cls.__name__}.from_config")

    def position_layout(self) -> PositionLayout | None:
        """Return the layout of the input positions; None (default) if they are not on a sequence or a grid.

        ``init="local"`` needs it, and calls it again after writing to its table.
        """
        return self._layout_of_hooks()

    def check_data(self, data: Any) -> None:
        """Check that a data module's batches fit. By default they do.

        Args:
            data: data module of any kind; attributes that it lacks are not checked.

        Raises:
            ValueError: if its batches do not fit.
        """

    def example_batch(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Return a batch of random inputs, for trials and tests.

        Args:
            batch_size: number of examples b.
            generator: random generator of the inputs.
        """
        raise NotImplementedError(f"{type(self).__name__}.example_batch")

    def forward(self, batch: Batch) -> AdaptedInput:
        """Compute the input array from the adapter's entries of a batch.

        Raises:
            KeyError: if an entry is missing.
        """
        raise NotImplementedError(f"{type(self).__name__}.forward")


class QueryProvider(QueryPositionHooks, nn.Module):
    """Base class of modules that provide the output queries: one for each output position.

    Args:
        num_query_channels: output query channels f.
        ordered: deprecated; define :meth:`position_layout` instead.
    """

    def __init__(self, num_query_channels: int, ordered: bool | None = None):
        super().__init__()
        self.num_query_channels = num_query_channels
        self._set_ordered(ordered)

    def position_layout(self, inputs: PositionLayout | None) -> PositionLayout | None:
        """Return the layout of the output positions; None (default) if they are not on a sequence or a grid.

        With ``init="local"``, the queries of a layout's positions start as positions of the input.

        Args:
            inputs: layout of the input positions, which is returned if the input array itself is the queries.
        """
        return self._layout_of_hooks(inputs)

    def forward(self, adapted: AdaptedInput, positions: Tensor | None = None) -> Tensor:
        """Return the output queries.

        Args:
            adapted: adapted input, for queries that depend on it.
            positions: output positions to query (b, p). Default: all o.

        Returns:
            Queries (b or 1, o, f), or (b, p, f) for ``positions``. A batch of 1 is shared by all examples.
        """
        raise NotImplementedError(f"{type(self).__name__}.forward")


class TrainableQueryProvider(QueryProvider):
    """Learned queries that do not depend on the input.

    Args:
        num_queries: output positions o.
        num_query_channels: output query channels f.
        init_scale: standard deviation of the normal initialisation.
        ordered: the output positions are a sequence, so that neighbours belong together.
    """

    def __init__(self, num_queries: int, num_query_channels: int, init_scale: float = 0.02, ordered: bool = True):
        super().__init__(num_query_channels)
        self.ordered = ordered
        self.queries = nn.Parameter(torch.empty(num_queries, num_query_channels).normal_(0.0, init_scale))

    @property
    def query_table(self) -> nn.Parameter:
        """Deprecated: use ``queries``."""
        return self.queries

    def position_layout(self, inputs: PositionLayout | None) -> PositionLayout | None:
        return PositionLayout(self.queries, self.queries) if self.ordered else None

    def forward(self, adapted: AdaptedInput, positions: Tensor | None = None) -> Tensor:
        if positions is None:
            return self.queries[None]
        # Not self.queries[positions]: the gradients of an index are summed in no fixed order on several threads.
        return nn.functional.embedding(positions, self.queries)


class InputQueryProvider(QueryProvider):
    """The input array itself as queries: one output position for each input position.

    Args:
        num_query_channels: input channels c.
    """

    def __init__(self, num_query_channels: int):
        super().__init__(num_query_channels)

    def position_layout(self, inputs: PositionLayout | None) -> PositionLayout | None:
        return inputs

    def forward(self, adapted: AdaptedInput, positions: Tensor | None = None) -> Tensor:
        if positions is None:
            return adapted.x
        return adapted.x.gather(1, positions[..., None].expand(-1, -1, adapted.x.shape[-1]))


class OutputAdapter(nn.Module):
    """Base class of modules that map the decoder's output to the output of a task.

    A subclass implements :meth:`from_config` and :meth:`forward`.

    Args:
        query_provider: provider of the output queries.
    """

    def __init__(self, query_provider: QueryProvider):
        super().__init__()
        self.query_provider = query_provider

    @classmethod
    def from_config(cls, config: Any, input_adapter: InputAdapter) -> OutputAdapter:
        """Build the adapter from its own subclass of :class:`~perceiver_core.config.DecoderConfig`.

        Args:
            config: decoder config.
            input_adapter: input adapter of the model, for adapters that share weights with it.
        """
        raise NotImplementedError(f"{cls.__name__}.from_config")

    def forward(self, decoded: Tensor) -> Any:
        """Map the decoder's output (..., f) to the output of the task, position by position."""
        raise NotImplementedError(f"{type(self).__name__}.forward")
