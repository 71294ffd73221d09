"""Deprecated name of :mod:`perceiver_plugins.huggingface`; it will be removed in the next release."""

from perceiver_plugins.deprecation import moved_module

__getattr__ = moved_module(__name__, "perceiver_plugins.huggingface")
