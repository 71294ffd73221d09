"""Models of krasserm's perceiver-io: they are read. What is exported is imported when it is used."""

from __future__ import annotations

from perceiver_plugins.lazy import lazy_exports

_EXPORTS = {
    "perceiver_plugins.krasserm.conversion": ("CONVERSIONS", "Conversion", "conversion_of"),
    "perceiver_plugins.krasserm.format": ("KrassermFormat",),
}

__getattr__, __all__ = lazy_exports(__name__, _EXPORTS)
