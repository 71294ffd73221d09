"""Results of a run as plain data: metrics, checkpoints, folder and duration."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.utilities import rank_zero_only

from perceiver_cli.checkpoint_files import replacing_text
from perceiver_cli.report import best_callbacks


@dataclass(frozen=True)
class RunResult:
    """Result of a run.

    Attributes:
        command: "fit", "validate" or "test".
        task: name of the task.
        metrics: latest value of each metric that the run logged, by name.
        seconds: seconds of training or evaluation, without imports and preparation of the data.
        model: source of the evaluated model, or checkpoint that training resumed from. None: a new model.
        steps: optimizer steps of the model, including those of resumed runs. 0 for an evaluation.
        epochs: epochs of training, including those of resumed runs and an incomplete last one. 0 for an evaluation.
        best_checkpoint: path of the best model, or None.
        best_metric: metric that selects the best model, or None.
        best_value: value of that metric, or None.
        last_checkpoint: path of the latest state, or None.
        folder: folder of the run, or None.
    """

    command: str
    task: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    model: str | None = None
    steps: int = 0
    epochs: int = 0
    best_checkpoint: str | None = None
    best_metric: str | None = None
    best_value: float | None = None
    last_checkpoint: str | None = None
    folder: str | None = None


def result_of_training(trainer: Trainer, last: Path | None, folder: Path | None) -> dict[str, Any]:
    """Return the fields of a :class:`RunResult` that a trainer determines, after training.

    Args:
        trainer: the trainer.
        last: path of the latest checkpoint. None: checkpoints are disabled.
        folder: folder of the run, or None.
    """
    best = next(iter(best_callbacks(trainer)), None)
    return {
        "metrics": metrics_of(trainer),
        "steps": trainer.global_step,
        "epochs": trainer.current_epoch,
        "best_checkpoint": best.best_model_path if best else None,
        "best_metric": best.monitor if best else None,
        "best_value": float(best.best_model_score) if best else None,
        "last_checkpoint": str(last) if last and last.exists() else None,
        "folder": str(folder) if folder and not trainer.fast_dev_run else None,  # type: ignore[attr-defined]
    }


def metrics_of(trainer: Trainer) -> dict[str, float]:
    """Return the latest metrics that are single numbers, by name."""
    return {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}


@rank_zero_only
def write_result(result: RunResult, file: str) -> None:
    """Write a result as JSON, in the first process only. Infinite numbers and NaN, which JSON lacks, are null.

    Raises:
        OSError: if the file cannot be written.
    """
    with replacing_text(Path(file).expanduser()) as stream:
        json.dump(_with_nulls(asdict(result)), stream, indent=2, ensure_ascii=False, allow_nan=False)
        stream.write("\n")


def _with_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_nulls(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
