from .lightning import LitPerceiver as LitPerceiver
from .lightning import LossSum as LossSum
