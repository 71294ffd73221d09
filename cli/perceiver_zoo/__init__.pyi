from .catalog import create_model as create_model
from .catalog import list_models as list_models
from .models import LoadedModel as LoadedModel
from .models import embed as embed
from .models import load as load
from .training import TrainedModel as TrainedModel
from .training import train as train
