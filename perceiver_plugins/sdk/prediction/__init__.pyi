from .predictor import Predictor as Predictor
from .reader import Reader as Reader
