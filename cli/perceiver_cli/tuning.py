"""Recording of the learning rate and batch size that Lightning's tuners find before training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import BatchSizeFinder, LearningRateFinder

from perceiver_cli.notes import note
from perceiver_cli.values import Values

TUNERS = (BatchSizeFinder, LearningRateFinder)


def with_found_values(callbacks: Sequence[Any], saved: Values, resumed: bool) -> list[Any]:
    """Add a callback that records the values that tuners find; remove tuners from a resumed run.

    Args:
        callbacks: the callbacks of the run.
        saved: the values to save as the run's configuration.
        resumed: the run is resumed, and keeps the values found when it started.
    """
    tuners = [callback for callback in callbacks if isinstance(callback, TUNERS)]
    if not tuners:
        return list(callbacks)
    if resumed:
        names = " and ".join(type(callback).__name__ for callback in tuners)
        note(f"perceiver: {names}: left out, as a resumed run keeps the values found when it started")
        return [callback for callback in callbacks if callback not in tuners]
    return [*callbacks, RecordFoundValues(saved)]


class RecordFoundValues(Callback):
    """Record the learning rate and batch size that were found, for a resumed run.

    Args:
        saved: the values to save as the run's configuration, changed in place.
    """

    def __init__(self, saved: Values):
        self.saved = saved

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Lightning runs the searches before all other callbacks.
        found = {
            ("optimizer", "lr"): getattr(pl_module, "lr", None),
            ("data", "batch_size"): getattr(trainer.datamodule, "batch_size", None),  # type: ignore[attr-defined]
        }
        for record in (self.saved, pl_module.run_config):
            for (section, option), value in found.items():
                if value is not None and option in (record.get(section) or {}):  # type: ignore[operator, union-attr]
                    record[section][option] = value  # type: ignore[index]
