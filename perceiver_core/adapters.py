"""The contract between a generic Perceiver and everything that knows a modality or a task.

A plugin subclasses :class:`InputAdapter` or :class:`OutputAdapter`, adds its fields to a subclass of
:class:`~perceiver_core.config.EncoderConfig` or :class:`~perceiver_core.config.DecoderConfig`, and registers the two
under a name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

Batch = Mapping[str, Any]
"""What a data loader yields: tensors under the names that Hugging Face uses (``input_ids``, ``pixel_values``, ...)."""


class AdaptedInput(NamedTuple):
    """What an input adapter makes of a batch.

    Attributes:
        x: the input array (b, m, c), positions included.
        pad_mask: (b, m), True at places that are padding, or None if none is.
    """

    x: Tensor
    pad_mask: Tensor | None = None


class InputAdapter(nn.Module):
    """Turns one modality's entry of a batch into the array that the encoder looks at.

    A subclass builds itself in :meth:`from_config` and implements :meth:`forward`.

    Args:
        num_input_channels: channels c of the array that :meth:`forward` returns.
    """

    def __init__(self, num_input_channels: int):
        super().__init__()
        self.num_input_channels = num_input_channels

    @classmethod
    def from_config(cls, config: Any) -> InputAdapter:
        """Builds the adapter from its own subclass of :class:`~perceiver_core.config.EncoderConfig`."""
        raise NotImplementedError(f"{cls.__name__}.from_config")

    @property
    def position_table(self) -> Tensor | None:
        """Learned positions of the m places, a parameter (m, f), or None if there are none to initialise."""
        return None

    def positions_on_grid(self) -> Tensor | None:
        """What the last f channels of the input array hold of a place, whatever is there: (*grid, f).

        The grid is how the m places lie: (m) of a sequence, (height, width) of an image row by row. With
        ``init="local"``, attention starts local on it. By default the places are a sequence with the learned
        :attr:`position_table`. None: there are no positions, or on no grid.
        """
        return self.position_table

    def check_data(self, data: Any) -> None:
        """Checks that a data module's batches fit.

        Args:
            data: the data module, of any kind; an attribute that it does not have says nothing.

        Raises:
            ValueError: if its batches do not fit.
        """

    def example_batch(self, batch_size: int, generator: torch.Generator) -> Batch:
        """A batch of random inputs that the adapter can read: for trials and tests.

        Args:
            batch_size: number of examples.
            generator: draws the numbers.
        """
        raise NotImplementedError(f"{type(self).__name__}.example_batch")

    def forward(self, batch: Batch) -> AdaptedInput:
        """Reads what it needs from ``batch`` (a missing entry is a KeyError) and returns the input array."""
        raise NotImplementedError(f"{type(self).__name__}.forward")


class QueryProvider(nn.Module):
    """Provides the output queries: one row for each place of the output that can be asked for.

    Args:
        num_query_channels: channels f of a query.
        ordered: whether the output places are those of a sequence in their order, so that neighbours belong together.
    """

    def __init__(self, num_query_channels: int, ordered: bool = False):
        super().__init__()
        self.num_query_channels = num_query_channels
        self.ordered = ordered

    @property
    def query_table(self) -> Tensor | None:
        """Learned queries (o, f), or None if there are none to initialise."""
        return None

    def forward(self, adapted: AdaptedInput, positions: Tensor | None = None) -> Tensor:
        """Returns the queries.

        Args:
            adapted: the input, for queries that depend on it.
            positions: (b, p), which of the o output places are asked for; None: all of them.

        Returns:
            (b or 1, o, f), or (b, p, f) for ``positions``. A batch of 1 is shared by all examples.
        """
        raise NotImplementedError(f"{type(self).__name__}.forward")


class TrainableQueryProvider(QueryProvider):
    """Learned queries that do not depend on the input.

    Args:
        num_queries: number o of output places.
        num_query_channels: channels f of a query.
        init_scale: standard deviation of the normal initialisation.
        ordered: whether the output places are those of a sequence in their order.
    """

    def __init__(self, num_queries: int, num_query_channels: int, init_scale: float = 0.02, ordered: bool = True):
        super().__init__(num_query_channels, ordered)
        self.queries = nn.Parameter(torch.empty(num_queries, num_query_channels).normal_(0.0, init_scale))

    @property
    def query_table(self) -> nn.Parameter:
        return self.queries

    def forward(self, adapted: AdaptedInput, positions: Tensor | None = None) -> Tensor:
        if positions is None:
            return self.queries[None]
        # Not self.queries[positions]: the gradients of an index are summed in no fixed order on several threads.
        return nn.functional.embedding(positions, self.queries)


class InputQueryProvider(QueryProvider):
    """The adapted input itself asks: one output place for each place of the input, however many there are.

    Args:
        num_query_channels: channels of the input array.
    """

    def __init__(self, num_query_channels: int):
        super().__init__(num_query_channels, ordered=True)

    def forward(self, adapted: AdaptedInput, positions: Tensor | None = None) -> Tensor:
        if positions is None:
            return adapted.x
        return adapted.x.gather(1, positions[..., None].expand(-1, -1, adapted.x.shape[-1]))


class OutputAdapter(nn.Module):
    """Provides the output queries, and turns the decoder's answers to them into the task's output.

    A subclass builds itself in :meth:`from_config` and implements :meth:`forward`.

    Args:
        query_provider: provides the output queries.
    """

    def __init__(self, query_provider: QueryProvider):
        super().__init__()
        self.query_provider = query_provider

    @classmethod
    def from_config(cls, config: Any, input_adapter: InputAdapter) -> OutputAdapter:
        """Builds the adapter from its own subclass of :class:`~perceiver_core.config.DecoderConfig`.

        Args:
            config: the decoder's configuration.
            input_adapter: the model's input adapter, for adapters that share weights with it.
        """
        raise NotImplementedError(f"{cls.__name__}.from_config")

    def forward(self, decoded: Tensor) -> Any:
        """Turns the decoder's output (..., f) into the task's output, place by place."""
        raise NotImplementedError(f"{type(self).__name__}.forward")
