"""Several inputs as one. What is exported is imported when it is used."""

from __future__ import annotations

from perceiver_plugins.lazy import lazy_exports

_EXPORTS = {
    "perceiver_plugins.composite.adapters": ("CompositeInputAdapter",),
    "perceiver_plugins.composite.config": ("CompositeEncoderConfig",),
}

__getattr__, __all__ = lazy_exports(__name__, _EXPORTS)
