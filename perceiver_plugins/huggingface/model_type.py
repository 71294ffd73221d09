"""The model type of the zoo's classes, apart from them: it is compared before transformers is imported."""

MODEL_TYPE = "perceiver-zoo"
"""``model_type`` in the ``config.json`` of such a model."""
