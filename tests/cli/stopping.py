"""A callback that stops its own process in the middle of a run."""

from __future__ import annotations

import os
import signal
from typing import Any

from pytorch_lightning import Callback, Trainer


class Stop(Callback):
    """Where the environment says ``STOP_AT="train 7 SIGKILL"``, step 7 (counted from 0) begins with that signal.

    ``validation 5 SIGINT``: the validation after five steps is interrupted.
    """

    def __init__(self) -> None:
        where, step, name = os.environ.get("STOP_AT", "never 0 SIGTERM").split()
        self.where, self.step, self.signal = where, int(step), signal.Signals[name]

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self._stop("train", trainer)

    def on_before_zero_grad(self, trainer: Trainer, *_: Any) -> None:
        self._stop("within", trainer)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx == 1 and not trainer.sanity_checking:
            self._stop("validation", trainer)

    def _stop(self, where: str, trainer: Trainer) -> None:
        if (where, trainer.global_step) == (self.where, self.step):
            os.kill(os.getpid(), self.signal)


class Fail(Callback):
    """Fails at the first step."""

    def on_train_batch_start(self, *_: Any) -> None:
        raise RuntimeError("the machine is\non fire")


class Unreadable(Callback):
    """Keep in checkpoints an object that no restricted unpickler reads."""

    def state_dict(self) -> dict[str, Any]:
        return {"state": self}
