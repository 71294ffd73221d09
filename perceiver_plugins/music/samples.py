"""Samples of music, written while a model trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from perceiver_plugins.generation.samples import continue_rows
from perceiver_plugins.music.midi_files import write_midi
from perceiver_plugins.sdk.tasks.samples import ValidationSamples

NUM_PROMPT_TOKENS = 64
"""Tokens of a validation piece that are continued. Arbitrary."""

NUM_NEW_TOKENS = 256
"""Largest number of tokens that are generated for a sample: 50 to 80 notes. Arbitrary."""


class MusicSamples(ValidationSamples):
    """Composes a piece from nothing, and continues the first validation pieces, at each validation.

    The MIDI files are in the folder ``samples`` of the run, if it has a logger with a folder. The paths of the last
    validation's files are printed at the end of training.

    Args:
        num_samples: number of files.

    Attributes:
        paths: files of the latest validation.
    """

    noun = "samples of music"

    def __init__(self, num_samples: int = 2):
        super().__init__(num_samples)
        self.paths: list[Path] = []

    def create(self, trainer: Trainer, pl_module: LightningModule, tokenizer: Any, batch: dict[str, Tensor]) -> None:
        if not trainer.loggers:
            return
        folder, stops = trainer.log_dir, {tokenizer.bos, tokenizer.eos}
        numbers = self.num_samples, NUM_PROMPT_TOKENS, NUM_NEW_TOKENS
        samples = continue_rows(pl_module.model, batch["input_ids"], *numbers, stops)
        if folder is not None and trainer.is_global_zero:
            pieces = [tokenizer.decode(torch.cat(sample).numpy()) for sample in samples]
            self._write(Path(folder) / "samples", trainer.global_step, pieces)

    def _write(self, folder: Path, step: int, pieces: list[Any]) -> None:
        """Write pieces that have notes."""
        folder.mkdir(exist_ok=True)
        self.paths = []
        for number, notes in enumerate(pieces):
            if notes.size:
                path = folder / f"step-{step}-{number}.mid"
                write_midi(path, notes)
                self.paths.append(path)

    @rank_zero_only
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # in teardown, after the progress bar has been closed
        if self.paths and stage == "fit":
            print("\nMusic of the model (the first piece from nothing, others continue validation pieces):")
            for path in self.paths:
                print(f"  {path}")
