from .loading import IGNORED as IGNORED
from .loading import example_rng as example_rng
from .module import PerceiverDataModule as PerceiverDataModule
