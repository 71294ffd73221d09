"""Lightning module of causal language models."""

from __future__ import annotations

from pytorch_lightning import Callback

from perceiver_plugins.generation.lightning import LitCausalModel
from perceiver_plugins.text.samples import ContinuationSamples


class LitCausalLanguageModel(LitCausalModel):
    """Causal language model, trained to predict the next token of a text.

    For validation and test data, it logs the loss in nats per token, the perplexity, and bits per UTF-8 byte. At each
    validation, it writes a text from nothing and continues validation texts
    (:class:`~perceiver_plugins.text.samples.ContinuationSamples`).
    """

    task = "clm"
    unit = "byte"

    def configure_callbacks(self) -> list[Callback]:
        return [*super().configure_callbacks(), ContinuationSamples(self.num_samples)]
