"""Named models of the registry."""

from perceiver_registry import create_model as create_model
from perceiver_registry import list_models as list_models
