"""The callbacks of ``perceiver fit``: checkpoints of which none is ever half a one, and a clean end on Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
import yaml
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.trainer.states import RunningStage
from pytorch_lightning.utilities import rank_zero_info
from pytorch_lightning.utilities.exceptions import SIGTERMException

if TYPE_CHECKING:
    from pytorch_lightning.loops.progress import _ProcessedTracker

LAST = "last"
BEST = "best"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and moves it there: a killed run leaves the old one or the new one.

    Lightning's own way goes through the folder for temporary files, from where a move may be a copy.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        try:
            with partial.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def best_checkpoint() -> ModelCheckpoint:
    """Keeps ``best.ckpt``: the model with the lowest validation loss so far."""
    return ModelCheckpoint(filename=BEST, monitor="val_loss", mode="min", save_top_k=1, enable_version_counter=False)


class LastCheckpoint(Checkpoint):
    """Keeps ``last.ckpt`` up to date: every so many steps, after each validation, and at the end of training.

    Ctrl-C ends training after the step that is under way, with ``last.ckpt`` saved; a second one ends it at once.

    Args:
        every_n_steps: optimizer steps between two checkpoints. 0: none between validations.
    """

    def __init__(self, every_n_steps: int = 200):
        self.every_n_steps = every_n_steps
        self.interrupted = False
        self._in_step = False
        self._saved_step = 0

    @staticmethod
    def path(trainer: Trainer) -> Path:
        """Where the checkpoint lies: beside the best one."""
        best = next((c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.dirpath), None)
        folder = Path(best.dirpath) if best and best.dirpath else Path(trainer.default_root_dir) / "checkpoints"
        return folder / f"{LAST}.ckpt"

    def save(self, trainer: Trainer) -> None:
        """Saves the run's state."""
        self._saved_step = trainer.global_step
        trainer.save_checkpoint(self.path(trainer))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        with contextlib.suppress(ValueError):  # only the main thread may set a handler
            signal.signal(signal.SIGINT, self._on_sigint)

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self._in_step = True

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self._in_step = False
        # Under gradient accumulation several batches end at the same step. A state between a step and the validation
        # that belongs to it would be resumed without the validation; the one after it is saved anyway.
        step = trainer.global_step
        due = self.every_n_steps and step % self.every_n_steps == 0 and step != self._saved_step
        if due and not self._validation_follows(trainer):
            self.save(trainer)
        if self.interrupted:
            self.save(trainer)
            raise KeyboardInterrupt

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step != self._saved_step:
            self.save(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        # Ctrl-C during validation or between two steps, or SIGTERM. Within a step, weights may be half updated.
        unsaved = trainer.global_step != self._saved_step and not self._in_step
        if isinstance(exception, KeyboardInterrupt | SIGTERMException) and unsaved and not trainer.sanity_checking:
            if trainer.state.stage == RunningStage.VALIDATING:
                self._rewind_validation(trainer)
            self.save(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGINT, signal.default_int_handler)

    @staticmethod
    def _validation_follows(trainer: Trainer) -> bool:
        loop = trainer.fit_loop
        return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)  # type: ignore[arg-type]

    @staticmethod
    def _rewind_validation(trainer: Trainer) -> None:
        """Lets the validation that is under way be done again, as a whole, by a run that is resumed from here."""
        progress = trainer.fit_loop.epoch_loop.val_loop.batch_progress
        total = cast("_ProcessedTracker", progress.total)
        progress.reset_on_run()
        # What Lightning takes as the sign of a validation that was interrupted: a batch was begun and not finished.
        total.completed = total.processed
        total.ready = total.started = total.processed + 1

    def _on_sigint(self, *_: Any) -> None:
        # Within a step, weights may be half updated: the step is finished first.
        first, self.interrupted = not self.interrupted, True
        if not (self._in_step and first):
            raise KeyboardInterrupt
        rank_zero_info("\nEnding after this step; Ctrl-C again ends at once.")


class SaveConfig(Callback):
    """Writes the run's configuration beside its logs, from which ``--config`` repeats the run.

    Args:
        values: the configuration, as plain data.
    """

    def __init__(self, values: Mapping[str, Any]):
        self.values = values

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        folder = Path(trainer.log_dir or trainer.default_root_dir)  # asks all processes, so all must come here
        if trainer.is_global_zero:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "config.yaml").write_text(yaml.safe_dump(dict(self.values), sort_keys=False), encoding="utf-8")
