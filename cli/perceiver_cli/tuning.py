"""Lightning's search for a learning rate and a batch size before training, and what it leaves for a resumed run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import BatchSizeFinder, LearningRateFinder

from perceiver_cli.notes import note
from perceiver_cli.values import Values

TUNERS = (BatchSizeFinder, LearningRateFinder)


def with_found_values(callbacks: Sequence[Any], saved: Values, resumed: bool) -> list[Any]:
    """The callbacks of a run, with one that records the values that were found where some search for them.

    Args:
        callbacks: the callbacks.
        saved: the values that are saved as the run's configuration.
        resumed: whether the run is resumed: values were found when it began, and are not searched again.
    """
    tuners = [callback for callback in callbacks if isinstance(callback, TUNERS)]
    if not tuners:
        return list(callbacks)
    if resumed:
        names = " and ".join(type(callback).__name__ for callback in tuners)
        note(f"perceiver: {names}: left out, as a resumed run keeps the values that were found when it began")
        return [callback for callback in callbacks if callback not in tuners]
    return [*callbacks, RecordFoundValues(saved)]


class RecordFoundValues(Callback):
    """Record the learning rate and the batch size that were found, so that a resumed run has them.

    Args:
        saved: the values that are saved as the run's configuration, which are changed.
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
