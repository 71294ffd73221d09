"""Lightning module of causal models of symbolic music."""

from __future__ import annotations

from typing import ClassVar, Literal

from perceiver_plugins.generation.lightning import LitCausalModel


class LitMusicModel(LitCausalModel):
    """Causal model of symbolic music, trained to predict the next token of a piece.

    For validation and test data, it logs the loss in nats per token, the perplexity, and nats per note.
    """

    task = "symbolic-music"
    unit = "note"
    loss_per_unit: ClassVar[Literal["bits", "nats"]] = "nats"
