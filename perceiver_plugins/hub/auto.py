"""To be imported where ``transformers``' Auto classes and pipelines are to work on the zoo's models."""

from perceiver_plugins.hub.registration import register

register()
