"""Registers the zoo's models with the Auto classes and pipelines of ``transformers`` when it is imported."""

from perceiver_plugins.huggingface.registration import register

register()
