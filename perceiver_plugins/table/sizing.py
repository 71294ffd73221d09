"""Defaults for tables by the number of training examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perceiver_plugins.sdk.sizing import DataSize
from perceiver_registry import SizedDefaults

TASKS = ("classification", "regression")
"""Tasks that have a rule."""

TABLE_MODEL = {
    "model.num_latents": 16,
    "model.num_latent_channels": 64,
    "model.encoder.num_input_channels": 64,
    "model.encoder.column_init_scale": 0.2,
    "model.encoder.num_cross_attention_heads": 1,
    "model.encoder.num_self_attention_heads": 4,
    "model.encoder.num_self_attention_layers_per_block": 1,
    "model.decoder.num_output_query_channels": 64,
    "model.decoder.pool_inputs": True,
}
"""Model of tables of all sizes. In cross-validation of the training rows of the benchmark ``own-data --set=diabetes``,
larger columns raise R2 from 0.28 to 0.39, the pooled input as well to 0.40. On held-out rows of scikit-learn's split
(``--task=regression``), R2 was 0.50 and 0.53 with the former defaults, and is 0.56 and 0.57, with the seeds 0 and 1."""

SMALL_TABLE = {"model.encoder.number_dropout": 0.2, "task.ema_decay": 0.98, "lr_scheduler.warmup_steps": 20}
"""Options of small tables, against overfitting and against a best checkpoint chosen by the noise of a few validation
rows. In cross-validation of the training rows of ``own-data --set breast-cancer wine``, they raise the accuracy by 1
and 3 points, label smoothing included."""

LARGE_TABLE = {"task.ema_decay": 0.99}
"""Options of larger tables."""

FEW_VALIDATION_ROWS = 50
"""Validation rows below which the lowest loss is noise, so that ``best.ckpt`` is the latest model. Arbitrary:
measured were 11 to 34 rows (``python -m benchmarks own-data --part=tune --set breast-cancer wine diabetes``)."""

SMALL_ROWS = 2_000
"""Rows up to which a table is small. Arbitrary: measured were tables of 107 to 341 and of 16,000 rows."""


def size_rule(datamodule: Any, task: str, values: Mapping[str, Any]) -> SizedDefaults | None:
    """Return the defaults for tables with a class or numbers; None for other tasks and data of unknown size.

    Args:
        datamodule: the data module.
        task: name of the task.
        values: values of the run by dotted flag.
    """
    size = DataSize.of(datamodule) if task in TASKS else None
    if size is None:
        return None
    stops_early = values.get("task.patience") is not None
    has_embedded_columns = bool(getattr(datamodule, "column_inputs", None))
    return SizedDefaults(size.describe("row"), choose_defaults(size, stops_early, has_embedded_columns))


def choose_defaults(size: DataSize, stops_early: bool = False, has_embedded_columns: bool = False) -> dict[str, Any]:
    """Return the defaults for data of a size, by dotted flag.

    Args:
        size: size of the training data.
        stops_early: the run ends when the validation loss no longer falls, so that its latest model is not its best.
        has_embedded_columns: the table has columns of texts or images. Their many positions would outweigh the others
            in the mean of the input, which is not pooled then: on a generated table of 450 rows and three classes,
            whose label is in the text or in the image, the accuracy on 300 other rows was 0.73 and 0.82 with a pooled
            input and the seeds 0 and 1, and 0.97 without it.
    """
    options = SMALL_TABLE if size.num_examples <= SMALL_ROWS else LARGE_TABLE
    rows = size.num_validation_examples
    keep_latest = rows is not None and rows < FEW_VALIDATION_ROWS and not stops_early
    best = {"checkpoint.best": "latest"} if keep_latest else {}
    model = TABLE_MODEL | ({"model.decoder.pool_inputs": False} if has_embedded_columns else {})
    return {**model, **options, **size.smoothing(), "trainer.max_epochs": size.epochs(), **best}
