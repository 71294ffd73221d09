"""Hooks of interface 1.2 that ``position_layout`` replaced in 2.0.

Adapters and query providers that define them work in this release, with a DeprecationWarning. The next release removes
the hooks.
"""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor

from perceiver_core.position_layout import PositionLayout


class InputPositionHooks:
    """Deprecated ``position_table`` and ``positions_on_grid`` of input adapters."""

    position_layout: Any

    @property
    def position_table(self) -> Tensor | None:
        """Deprecated: use ``position_layout().table``."""
        if self._defines_hooks():
            return None
        _warn(f"{type(self).__name__}.position_table", "use position_layout().table")
        layout = self.position_layout()
        return None if layout is None else layout.table

    def positions_on_grid(self) -> Tensor | None:
        """Deprecated: use ``position_layout().positions``."""
        if self._defines_hooks():
            return self.position_table
        _warn(f"{type(self).__name__}.positions_on_grid", "use position_layout().positions")
        layout = self.position_layout()
        return None if layout is None else layout.positions

    def _layout_of_hooks(self) -> PositionLayout | None:
        """Return the layout that a subclass describes by deprecated hooks."""
        if not self._defines_hooks():
            return None
        _warn(f"{type(self).__name__}: position_table and positions_on_grid", "define position_layout")
        positions = self.positions_on_grid()
        return None if positions is None else PositionLayout(positions, self.position_table)

    def _defines_hooks(self) -> bool:
        own, base = type(self), InputPositionHooks
        return own.position_table is not base.position_table or own.positions_on_grid is not base.positions_on_grid


class QueryPositionHooks:
    """Deprecated ``ordered`` and ``query_table`` of query providers."""

    ordered: bool = False

    @property
    def query_table(self) -> Tensor | None:
        """Deprecated: use ``position_layout(inputs).table``."""
        return None

    def _set_ordered(self, ordered: bool | None) -> None:
        if ordered is not None:
            _warn(f"{type(self).__name__}: ordered={ordered}", "define position_layout")
            self.ordered = ordered

    def _layout_of_hooks(self, inputs: PositionLayout | None) -> PositionLayout | None:
        """Return the layout that a subclass describes by deprecated hooks."""
        if not self.ordered:
            return None
        _warn(f"{type(self).__name__}: ordered and query_table", "define position_layout")
        table = self.query_table
        if table is not None:
            return PositionLayout(table, table)
        return None if inputs is None else PositionLayout(inputs.positions)


def _warn(what: str, instead: str) -> None:
    message = f"{what}: deprecated since interface 2.0 ({instead})"
    warnings.warn(message, DeprecationWarning, stacklevel=3)
