"""Errors that are the data's."""

from __future__ import annotations

from perceiver_registry.errors import UserError


class DataError(UserError):
    """Data that cannot be used as it is."""
