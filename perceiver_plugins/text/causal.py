"""Lightning module of causal language models."""

from __future__ import annotations

from perceiver_plugins.generation.lightning import LitCausalModel


class LitCausalLanguageModel(LitCausalModel):
    """Causal language model, trained to predict the next token of a text.

    For validation and test data, it logs the loss in nats per token, the perplexity, and bits per UTF-8 byte.
    """

    task = "clm"
    unit = "byte"
