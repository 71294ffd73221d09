from .embedding import EmbeddingPredictor as EmbeddingPredictor
from .file_reader import FileReader as FileReader
from .predictor import Predictor as Predictor
from .reader import InMemory as InMemory
from .reader import Reader as Reader
