from .adapters import NextTokenOutputAdapter as NextTokenOutputAdapter
from .adapters import TokenInputAdapter as TokenInputAdapter
from .config import NextTokenDecoderConfig as NextTokenDecoderConfig
from .config import TokenEncoderConfig as TokenEncoderConfig
from .lightning import LitCausalModel as LitCausalModel
from .prediction import GenerationPredictor as GenerationPredictor
from .sampling import Sampling as Sampling
from .sampling import generate as generate
