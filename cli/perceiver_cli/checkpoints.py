"""Callbacks of ``perceiver fit`` that save checkpoints, and end a run cleanly on Ctrl-C, SIGTERM and SIGHUP."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.trainer.states import RunningStage
from pytorch_lightning.utilities import rank_zero_info
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor

from perceiver_cli.record import check_record
from perceiver_registry.errors import RunError

if TYPE_CHECKING:
    from pytorch_lightning.loops.progress import _ProcessedTracker

HANGUP: Any = getattr(signal, "SIGHUP", None)
"""Signal sent when a terminal is closed. None on Windows, which lacks it."""

LAST = "last"
BEST = "best"

BestModel = Literal["lowest-loss", "latest"]
"""Model of ``best.ckpt``: the one with the lowest validation loss, or the latest validated one."""


class LatestValidated(ModelCheckpoint):
    """Save the latest validated model, whatever its validation loss."""

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        return current is not None


def best_checkpoint(model: BestModel) -> ModelCheckpoint:
    """Create the callback that saves ``best.ckpt``."""
    kind = LatestValidated if model == "latest" else ModelCheckpoint
    return kind(filename=BEST, monitor="val_loss", mode="min", save_top_k=1, enable_version_counter=False)


class LastCheckpoint(Checkpoint):
    """Save ``last.ckpt`` at intervals of steps, after each validation, and at the end of training.

    Ctrl-C ends training after the current step, with ``last.ckpt`` saved; a second Ctrl-C ends it at once. SIGHUP ends
    it like SIGTERM, unless it is ignored (``nohup``).

    Before the first step, the content of checkpoints is checked for entries that cannot be read back. Logs are flushed
    to disk with each checkpoint.

    Args:
        every_n_steps: optimizer steps between checkpoints. 0: none between validations.
    """

    def __init__(self, every_n_steps: int = 200):
        self.every_n_steps = every_n_steps
        self.interrupted = False
        self._in_step = False
        self._saved_step = 0
        self._unwritten_logs = False
        self._hangup_handler: Any = None

    @staticmethod
    def path(trainer: Trainer) -> Path:
        """Return the path of the checkpoint, in the folder of the best one."""
        best = next((c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.dirpath), None)
        folder = Path(best.dirpath) if best and best.dirpath else Path(trainer.default_root_dir) / "checkpoints"
        return folder / f"{LAST}.ckpt"

    def save(self, trainer: Trainer) -> None:
        """Save the run's state."""
        trainer.save_checkpoint(self.path(trainer))
        self._saved_step = trainer.global_step
        self._write_logs(trainer)
        self._unwritten_logs = True  # Lightning logs the results of a validation after this callback

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        check_record(trainer._checkpoint_connector.dump_checkpoint())
        with contextlib.suppress(ValueError):  # only the main thread may set a handler
            signal.signal(signal.SIGINT, self._on_sigint)
            if HANGUP is not None and signal.getsignal(HANGUP) == signal.SIG_DFL:
                self._hangup_handler = _forward_to_sigterm(os.getpid())
                signal.signal(HANGUP, self._hangup_handler)

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if self._unwritten_logs:
            self._write_logs(trainer)
            self._unwritten_logs = False
        self._in_step = True

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self._in_step = False
        # Under gradient accumulation several batches end at the same step. A state saved between a step and its
        # validation would be resumed without the validation, after which the state is saved anyway.
        step = trainer.global_step
        due = self.every_n_steps and step % self.every_n_steps == 0 and step != self._saved_step
        if due and not self._validation_follows(trainer):
            self.save(trainer)
        if self.interrupted:
            trainer._logger_connector.update_train_step_metrics()  # Lightning logs the step only after this hook
            self.save(trainer)
            raise KeyboardInterrupt

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step != self._saved_step:
            self.save(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore_hangup_handler()
        if trainer.global_step == self._saved_step or trainer.sanity_checking:
            return
        # Ctrl-C during validation or between two steps, or SIGTERM. Within a step, weights may be half updated.
        if isinstance(exception, KeyboardInterrupt | SIGTERMException) and not self._in_step:
            self._save_interrupted(trainer)
        elif isinstance(exception, RunError):
            # Weights with an infinite loss may be finite, but worse than those that were saved before.
            is_validating = trainer.state.stage == RunningStage.VALIDATING
            with contextlib.suppress(RunError):  # the weights are not finite either
                if is_validating or not self.path(trainer).exists():
                    self._save_interrupted(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore_hangup_handler()
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _save_interrupted(self, trainer: Trainer) -> None:
        if trainer.state.stage == RunningStage.VALIDATING:
            self._rewind_validation(trainer)
        self.save(trainer)

    def _restore_hangup_handler(self) -> None:
        with contextlib.suppress(ValueError):
            if self._hangup_handler is not None and signal.getsignal(HANGUP) is self._hangup_handler:
                signal.signal(HANGUP, signal.SIG_DFL)

    @staticmethod
    def _write_logs(trainer: Trainer) -> None:
        for logger in trainer.loggers if trainer.is_global_zero else ():
            logger.save()
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.flush()

    @staticmethod
    def _validation_follows(trainer: Trainer) -> bool:
        loop = trainer.fit_loop
        return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)  # type: ignore[arg-type]

    @staticmethod
    def _rewind_validation(trainer: Trainer) -> None:
        """Make a resumed run repeat the current validation from its first batch."""
        progress = trainer.fit_loop.epoch_loop.val_loop.batch_progress
        total = cast("_ProcessedTracker", progress.total)
        progress.reset_on_run()
        # Lightning detects an interrupted validation by a batch that was started and not completed.
        total.completed = total.processed
        total.ready = total.started = total.processed + 1

    def _on_sigint(self, *_: Any) -> None:
        # Within a step, weights may be half updated: finish the step first.
        first, self.interrupted = not self.interrupted, True
        if not (self._in_step and first):
            raise KeyboardInterrupt
        rank_zero_info("\nStopping after this step; press Ctrl-C again to stop at once.")


def _forward_to_sigterm(process: int) -> Any:
    """Create a signal handler that sends SIGTERM to ``process``, and does nothing in workers that inherit it."""

    def forward(*_: Any) -> None:
        if os.getpid() == process:
            os.kill(process, signal.SIGTERM)

    return forward
