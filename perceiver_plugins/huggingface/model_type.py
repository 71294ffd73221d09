"""Names of classes and model types in ``config.json``, in a module that does not import transformers."""

MODEL_TYPE = "perceiver-zoo"
"""``model_type`` in ``config.json``."""

HEADLESS = "PerceiverModel"
"""Class of transformers for encoders without a decoder."""
