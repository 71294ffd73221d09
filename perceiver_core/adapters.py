"""Adapters: the contract between a generic Perceiver and a modality or task.

A plugin subclasses :class:`InputAdapter` or :class:`OutputAdapter`, adds its fields to a subclass of
:class:`~perceiver_core.config.EncoderConfig` or :class:`~perceiver_core.config.DecoderConfig`, and registers the two
under a name.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from perceiver_core.context import NO_CONTEXT, Context, select_positions
from perceiver_core.deprecated import InputPositionHooks, QueryPositionHooks
from perceiver_core.position_layout import PositionLayout

Batch = Mapping[str, Any]
"""A batch of a data loader: tensors by the names that Hugging Face uses (``input_ids``, ``pixel_values``, ...)."""


class AdaptedInput(NamedTuple):
    """Output of an input adapter.

    Attributes:
        x: input array (b, m, c), position encodings included.
        pad_mask: padding mask (b, m), True at padding. Default: no padding.
        context: extra batch entries by name for the query provider and the output adapter, such as known future
            covariates or scales that undo a normalisation: (b, o, ...), with a value for each output position, or
            (b, 1, ...), with one that all positions share. Default: none.
    """

    x: Tensor
    pad_mask: Tensor | None = None
    context: Context = NO_CONTEXT


class InputAdapter(InputPositionHooks, nn.Module):
    """Base class of modules that map one modality's entries of a batch to the input array of the encoder.

    A subclass implements :meth:`from_config` and :meth:`forward`, and :meth:`position_layout` if it has positions.

    Args:
        num_input_channels: input channels c, of the array that :meth:`forward` returns.
    """

    is_causal: ClassVar[bool] = False
    """Each input is embedded independently of the others, as :class:`~perceiver_core.PerceiverAR` requires."""

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
        """Check that a data module's batches fit. The default accepts all.

        Args:
            data: data module of any kind; attributes that it lacks are not checked.

        Raises:
            ValueError: if its batches do not fit.
        """

    def default_positions(self, batch: Batch) -> Tensor | None:
        """Return the output positions (1, p) of a batch whose output is as long as its input.

        Output adapters of sequences decode these by default. None (default): decode all output positions.

        Args:
            batch: batch that :meth:`forward` reads.
        """
        return None

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

        With ``init="local"``, the table of the layout is initialised with the position encodings of the input.

        Args:
            inputs: layout of the input positions. Return it if the queries are the input array.
        """
        return self._layout_of_hooks(inputs)

    def forward(self, adapted: AdaptedInput, positions: Tensor | None = None) -> Tensor:
        """Return the output queries.

        Args:
            adapted: adapted input, for queries that depend on it. Its ``context`` covers all o output positions
                (:func:`~perceiver_core.select_positions`).
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
        ordered: the output positions are a sequence, so neighbours are related (used by local initialisation).
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
        # Not self.queries[positions]: its backward pass sums gradients in a nondeterministic order on several threads.
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
        return select_positions(adapted.x, positions)


class OutputAdapter(nn.Module):
    """Base class of modules that map the decoder's output to the output of a task.

    A subclass implements :meth:`from_config` and :meth:`forward`; :meth:`apply_context` if its output depends on extra
    batch entries; :meth:`serve` if exported models compute something other than ``model(batch)``.

    Args:
        query_provider: provider of the output queries.
    """

    output_name: ClassVar[str] = "output"
    """Name of the output in exported models, if the output is a single tensor (:meth:`serve`)."""

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if "served" in vars(cls) and "serve" not in vars(cls):
            warnings.warn(f"{cls.__name__}.served is deprecated: rename it to serve", DeprecationWarning, stacklevel=2)
            cls.serve = cls.served  # type: ignore[attr-defined,method-assign]

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

    def apply_context(self, output: Any, context: Context) -> Any:
        """Complete the output with extra entries of the batch, position by position. The default returns it unchanged.

        It runs after the forward pass of this module and must not use parameters: sharded ones may be released by then.

        Args:
            output: output of :meth:`forward` for all or some of the output positions: (b, o, ...), or (p, ...) for the
                positions of all examples that a mask selects.
            context: :attr:`AdaptedInput.context` at these positions: (b, o or 1, ...), or (p, ...).

        Returns:
            The model's output.
        """
        return output

    def serve(self, model: Any, batch: Batch) -> Mapping[str, Tensor]:
        """Compute the named output tensors of an exported model.

        By default these are the tensors of ``model(batch)``: those of a mapping or named tuple by their names, those of
        a list or tuple by name and index (``output_0``), and a single tensor as :attr:`output_name`.

        Args:
            model: model that this adapter is part of. ``model(batch, positions=positions)`` computes its output.
            batch: batch that the input adapter reads.
        """
        return dict(_named_tensors(model(batch), self.output_name))


def _named_tensors(output: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """Iterate over the tensors of a nested structure with their names."""
    if isinstance(output, Tensor):
        yield name, output
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from _named_tensors(value, str(key))
    elif isinstance(output, list | tuple):
        keys = getattr(output, "_fields", [f"{name}_{index}" for index in range(len(output))])
        for key, value in zip(keys, output, strict=True):
            yield from _named_tensors(value, key)
