"""Python API: functions for the command's ``fit``, ``predict``, ``embed`` and ``export``, with the same defaults.

>>> result = perceiver_zoo.train(task="image-classification", data="photos")
>>> result.predict(["new.jpg"])
>>> perceiver_zoo.load("logs/image-classification/version_0/checkpoints/best.ckpt").predict(["new.jpg"])

Importing this package does not import torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
