from .adapters import CompositeInputAdapter as CompositeInputAdapter
from .config import CompositeEncoderConfig as CompositeEncoderConfig
