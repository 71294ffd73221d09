"""Tables: numbers in columns, their data and their adapter. What is exported is imported when it is used."""

from __future__ import annotations

from perceiver_plugins.lazy import lazy_exports

_EXPORTS = {
    "perceiver_plugins.table.adapters": ("TableInputAdapter",),
    "perceiver_plugins.table.config": ("TableEncoderConfig",),
    "perceiver_plugins.table.data": ("DiabetesDataModule", "TableDataModule"),
    "perceiver_plugins.table.files": ("TableFilesDataModule",),
    "perceiver_plugins.table.reading": ("TableReader",),
}

__getattr__, __all__ = lazy_exports(__name__, _EXPORTS)
