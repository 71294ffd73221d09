"""Model type of the zoo's classes, in a module that does not import transformers."""

MODEL_TYPE = "perceiver-zoo"
"""``model_type`` in ``config.json``."""
