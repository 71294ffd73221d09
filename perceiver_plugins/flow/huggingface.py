"""Import path of :mod:`perceiver_plugins.huggingface.flow` for what this package exports of it."""

from perceiver_plugins.deprecation import moved_module

__getattr__ = moved_module(__name__, "perceiver_plugins.huggingface.flow", warn=False)
