"""Arrays of vectors, such as precomputed features and point clouds: input adapters, data modules and prediction."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
