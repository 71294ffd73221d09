from .lightning import LitPerceiver as LitPerceiver
from .lightning import LossSum as LossSum
from .metrics import EvaluationMetrics as EvaluationMetrics
