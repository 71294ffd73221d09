"""Import path of :mod:`perceiver_plugins.huggingface.multimodal` for what this package exports of it."""

from perceiver_plugins.deprecation import moved_module

__getattr__ = moved_module(__name__, "perceiver_plugins.huggingface.multimodal", warn=False)
