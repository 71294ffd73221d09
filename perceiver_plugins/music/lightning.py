"""Lightning module of causal models of symbolic music."""

from __future__ import annotations

from typing import ClassVar, Literal

from pytorch_lightning import Callback

from perceiver_plugins.generation.lightning import LitCausalModel
from perceiver_plugins.music.samples import MusicSamples


class LitMusicModel(LitCausalModel):
    """Causal model of symbolic music, trained to predict the next token of a piece.

    For validation and test data, it logs the loss in nats per token, the perplexity, and nats per note. At each
    validation, it writes MIDI files of music from nothing and of continued validation pieces
    (:class:`~perceiver_plugins.music.samples.MusicSamples`).
    """

    task = "symbolic-music"
    unit = "note"
    loss_per_unit: ClassVar[Literal["bits", "nats"]] = "nats"

    def configure_callbacks(self) -> list[Callback]:
        return [*super().configure_callbacks(), MusicSamples(self.num_samples)]
