"""Names of :mod:`perceiver_plugins.huggingface.multimodal` that this package exports."""

from perceiver_plugins.deprecation import moved_module

__getattr__ = moved_module(__name__, "perceiver_plugins.huggingface.multimodal", warn=False)
