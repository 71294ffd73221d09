"""Callback that stops its own process during a run."""

from __future__ import annotations

import os
import signal
from typing import Any

from pytorch_lightning import Callback, Trainer


class Stop(Callback):
    """Send a signal to this process at the point in ``STOP_AT``.

    "train 7 SIGKILL": at the start of step 7, counted from 0; "within 7 SIGINT": within step 7; "validation 5 SIGINT":
    in the validation after five steps.
    """

    def __init__(self) -> None:
        stage, step, name = os.environ.get("STOP_AT", "never 0 SIGTERM").split()
        self.stage, self.step, self.signal = stage, int(step), signal.Signals[name]

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self._stop("train", trainer)

    def on_before_zero_grad(self, trainer: Trainer, *_: Any) -> None:
        self._stop("within", trainer)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx == 1 and not trainer.sanity_checking:
            self._stop("validation", trainer)

    def _stop(self, stage: str, trainer: Trainer) -> None:
        if (stage, trainer.global_step) == (self.stage, self.step):
            os.kill(os.getpid(), self.signal)


class Fail(Callback):
    """Fail at the first step."""

    def on_train_batch_start(self, *_: Any) -> None:
        raise RuntimeError("the machine is\non fire")


class Unreadable(Callback):
    """Save an object in checkpoints that the restricted unpickler refuses."""

    def state_dict(self) -> dict[str, Any]:
        return {"state": self}
