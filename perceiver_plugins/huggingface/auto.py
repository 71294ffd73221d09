"""To be imported where ``transformers``' Auto classes and pipelines are to work on the zoo's models."""

from perceiver_plugins.huggingface.registration import register

register()
