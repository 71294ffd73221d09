"""Extra batch entries for output queries and output adapters.

Entries are (b, o, ...), or (b, 1, ...) if all output positions share them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from torch import Tensor

Context = Mapping[str, Tensor]
"""Extra batch entries by name (:class:`~perceiver_core.AdaptedInput`)."""

NO_CONTEXT: Context = {}


def select_positions(array: Tensor, positions: Tensor | None) -> Tensor:
    """Select positions of an array.

    Args:
        array: (b, o, ...).
        positions: positions (b or 1, p). None: all.

    Returns:
        (b, p, ...), or ``array`` itself for all positions.
    """
    if positions is None:
        return array
    index = positions.reshape(*positions.shape, *[1] * (array.dim() - 2))
    return array.gather(1, index.expand(array.shape[0], -1, *array.shape[2:]))


def context_at(context: Context, positions: Tensor) -> Context:
    """Select positions (b or 1, p) of entries that are not shared."""
    return _selected(context, lambda value: _unless_shared(value, lambda each: select_positions(each, positions)))


def context_where(context: Context, mask: Tensor) -> Context:
    """Select the positions of entries where a mask (b, o) is True: (number of True, ...)."""
    return _selected(context, lambda value: value.expand(*mask.shape, *value.shape[2:])[mask])


def context_between(context: Context, start: int, stop: int) -> Context:
    """Select consecutive positions of entries that are not shared."""
    return _selected(context, lambda value: _unless_shared(value, lambda each: each[:, start:stop]))


class _SelectedContext(Context):
    """Context at some output positions, selected when an entry is read: most adapters read none or few."""

    def __init__(self, context: Context, select: Callable[[Tensor], Tensor]):
        self.context = context
        self.select = select

    def __getitem__(self, name: str) -> Tensor:
        return self.select(self.context[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.context)

    def __len__(self) -> int:
        return len(self.context)


def _selected(context: Context, select: Callable[[Tensor], Tensor]) -> Context:
    return _SelectedContext(context, select) if context else context


def _unless_shared(value: Tensor, select: Callable[[Tensor], Tensor]) -> Tensor:
    return value if value.shape[1] == 1 else select(value)
