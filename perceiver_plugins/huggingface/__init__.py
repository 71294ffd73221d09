"""The zoo's models in Hugging Face's ecosystem: its folders, Auto classes and pipelines."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
