"""Deprecated name of :mod:`perceiver_plugins.huggingface.auto`, which model cards of earlier releases import."""

import warnings

import perceiver_plugins.huggingface.auto  # noqa: F401

warnings.warn(f"{__name__} is deprecated: import perceiver_plugins.huggingface.auto", DeprecationWarning, stacklevel=2)
