"""Re-export of :mod:`perceiver_plugins.huggingface.text`."""

from perceiver_plugins.deprecation import moved_module

__getattr__ = moved_module(__name__, "perceiver_plugins.huggingface.text", warn=False)
