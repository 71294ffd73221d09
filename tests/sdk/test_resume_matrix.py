"""Resumed runs equal uninterrupted ones for all pairs of features of ``resume_matrix``.

``PERCEIVER_FULL_MATRIX=1`` tests all combinations, ``=50`` every 50th of them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.loggers.logger import DummyLogger
from resume_matrix import Combination, all_combinations, assert_equal, covering_moments

from perceiver_core import PerceiverConfig
from perceiver_plugins.classification.config import ClassificationDecoderConfig
from perceiver_plugins.classification.lightning import LitClassifier
from perceiver_plugins.text import LitLanguageModel
from perceiver_plugins.text.data import HubTextDataModule, LabelledTextFilesDataModule, TextFilesDataModule

EVERY = int(os.environ.get("PERCEIVER_FULL_MATRIX", 0))
"""Step between the tested combinations. 0: a covering set of pairs."""

BATCHES = 3
"""Batches per epoch."""

LABELLED = (LabelledTextFilesDataModule, "jsonl")
"""Data module and suffix of the files of texts with any number of classes."""

pytestmark = pytest.mark.filterwarnings("ignore")

SCHEDULES: dict[str, dict[str, Any] | None] = {
    "none": None,
    "computed": {"name": "CosineWithWarmup", "warmup_steps": 3},
    "explicit": {"name": "OneCycle", "max_lr": 0.02, "total_steps": 40},
    "each epoch": {"name": "Step", "step_size": 1, "gamma": 0.5, "interval": "epoch"},
    "plateau": {"name": "ReduceLROnPlateau", "patience": 0, "threshold": 10.0},
}
"""The last one reduces the rate after each validation."""

VALIDATION: dict[str, dict[str, Any]] = {
    "each epoch": {},
    "within epochs": {"val_check_interval": 2},
    "across epochs": {"val_check_interval": 2, "check_val_every_n_epoch": None},
}


class Rows(DummyLogger):
    """Logger that records everything except measured times."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int, tuple[tuple[str, float], ...]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        kept = {name: value for name, value in metrics.items() if not name.endswith("per_second")}
        if set(kept) - {"epoch"}:
            assert step is not None
            self.rows.append((step, tuple(sorted(kept.items()))))


class Events(Checkpoint):
    """Record events, and save checkpoints at some moments, after the other callbacks like any ``Checkpoint``.

    Args:
        folder: for the checkpoints.
        moments: when to save, values of "saved".
    """

    def __init__(self, folder: Path, moments: Collection[str] = ()) -> None:
        self.folder = folder
        self.events: list[Any] = []
        self.saved: dict[str, list[tuple[Path, int, int]]] = {moment: [] for moment in moments}
        """Path, number of events and step of each checkpoint, by moment."""
        self.batches = 0

    def save(self, trainer: Trainer, moment: str) -> None:
        if moment in self.saved and trainer.state.fn == "fit" and not trainer.sanity_checking:
            saved = self.saved[moment]
            path = self.folder / f"{moment} {len(saved)}.ckpt"
            trainer.save_checkpoint(path)
            saved.append((path, len(self.events), trainer.global_step))

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        self.save(trainer, "before an epoch")

    def on_train_batch_start(self, trainer: Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        self.save(trainer, "before a batch")
        self.events.append(("batch", trainer.current_epoch, batch_idx, digest(batch)))

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        within = (batch_idx + 1) % trainer.accumulate_grad_batches
        last = batch_idx + 1 == BATCHES
        self.save(trainer, "after the last batch" if last else "after half a step" if within else "after a batch")

    def on_validation_batch_start(self, trainer: Trainer, module: Any, batch: Any, batch_idx: int, *_: Any) -> None:
        if batch_idx == 1:
            self.save(trainer, "in validation")

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self.events.append(("validation", trainer.global_step, float(trainer.callback_metrics["val_loss"])))
        self.save(trainer, "after validation")

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        self.save(trainer, "after an epoch")

    def on_train_end(self, trainer: Trainer, *_: Any) -> None:
        self.save(trainer, "out of steps")
        self.save(trainer, "out of time")


class OutOfTime(Callback):
    """End training after a batch, as a timer does."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.fit_loop.epoch_loop.batch_progress.total.processed == self.batch:
            trainer.should_stop = True


def digest(batch: dict[str, Any]) -> str:
    together = hashlib.sha256()
    for name in sorted(batch):
        together.update(batch[name].numpy().tobytes())
    return together.hexdigest()[:12]


class Runs:
    """Training runs in a folder."""

    def __init__(self, folder: Path, config: Callable[..., PerceiverConfig]) -> None:
        self.folder = folder
        self.config = config
        self.count = itertools.count()
        text = " ".join(f"word{number % 37} näh" for number in range(100))
        (folder / "train.txt").write_bytes(text.encode()[: BATCHES * 2 * 32])
        (folder / "val.txt").write_bytes(text.encode()[320:448])
        tagged = [
            {"text": text[number : number + 40], "label": list("abc"[: number % 4])}
            for number in range(BATCHES * 2 + 4)
        ]
        for split, part in (("train", tagged[: BATCHES * 2]), ("val", tagged[BATCHES * 2 :])):
            (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, part)), encoding="utf-8")
        (folder / "hub").mkdir()
        documents = [json.dumps({"text": text[number : number + 50]}) for number in range(60)]
        (folder / "hub" / "train-0.jsonl").write_text("\n".join(documents[:30]), encoding="utf-8")
        (folder / "hub" / "train-1.jsonl").write_text("\n".join(documents[30:]), encoding="utf-8")

    def data(self, kind: str, workers: int) -> Any:
        sizes = {"max_seq_len": 32, "batch_size": 2, "seed": 3, "num_workers": workers}
        if kind in ("streamed", "endless"):
            return HubTextDataModule(
                str(self.folder / "hub"), streaming=True, stream_val_docs=5, shuffle_buffer=9, **sizes
            )
        data_type, suffix = LABELLED if kind == "multi-label" else (TextFilesDataModule, "txt")
        files = {f"{split}_files": str(self.folder / f"{split}.{suffix}") for split in ("train", "val")}
        return data_type(**files, **sizes, cache_dir=str(self.folder / "cache"), random_train_shift=True)

    def module(self, kind: str, **options: Any) -> LightningModule:
        config = self.config(dropout=0.2)
        if kind != "multi-label":
            return LitLanguageModel.create(config, **options, num_samples=0)
        decoder = ClassificationDecoderConfig(
            num_classes=3, num_output_query_channels=8, num_cross_attention_heads=1, dropout=0.2, multi_label=True
        )
        return LitClassifier.create(replace(config, decoder=decoder), **options, class_weights="balanced")

    def trainer_options(self, each: Combination) -> dict[str, Any]:
        steps = 8 if each["accumulate"] == "1" else 5
        limits = {
            "steps": {"max_steps": steps},
            "epochs": {"max_epochs": 3},
            "steps or epochs": {"max_steps": steps, "max_epochs": 5},
        }[each["until"]]
        limited = {"limit_train_batches": BATCHES} if each["data"] == "streamed" else {}
        return {
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "default_root_dir": self.folder,
            "log_every_n_steps": 1,
            "accumulate_grad_batches": int(each["accumulate"]),
            **limits,
            **limited,
            **VALIDATION[each["validate"]],
        }

    def fit(
        self, each: Combination, moments: Collection[str] = (), checkpoint: Path | None = None, **options: Any
    ) -> Any:
        folder = self.folder / str(next(self.count))
        folder.mkdir()
        seed_everything(5 if checkpoint else 4, verbose=False)
        optimizer = {"name": "AdamW", "lr": 0.01, "in_backward": each["step"] == "in backward"}
        module = self.module(
            each["data"],
            optimizer=optimizer,
            lr_scheduler=SCHEDULES[each["schedule"]],
            ema_decay=0.9 if each["average"] == "yes" else None,
        )
        events, logger = Events(folder, moments), Rows()
        values = self.trainer_options(each) | options
        callbacks = [events, *values.pop("callbacks", [])]
        trainer = Trainer(**values, callbacks=callbacks, logger=logger)
        data = self.data(each["data"], int(each["workers"]))
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        trainer.save_checkpoint(folder / "end.ckpt")
        state = torch.load(folder / "end.ckpt", weights_only=True)
        return trainer, events, logger.rows, state


def check(runs: Runs, each: Combination, moments: list[str]) -> None:
    """Assert that runs, resumed from a checkpoint of each of the moments, equal an uninterrupted one."""
    whole_run = runs.fit(each, [moment for moment in moments if not moment.startswith("out of")])
    for moment in moments:
        check_resumed(runs, each, moment, whole_run)


def check_resumed(runs: Runs, each: Combination, moment: str, whole_run: Any) -> None:
    """Assert that a run, resumed from a checkpoint of the moment, equals the uninterrupted one."""
    _, whole, whole_rows, whole_state = whole_run
    first = whole
    if moment == "out of steps":
        _, first, _, _ = runs.fit(each, [moment], max_steps=5 if each["accumulate"] == "1" else 3, max_epochs=-1)
    if moment == "out of time":
        _, first, _, _ = runs.fit(each, [moment], callbacks=[OutOfTime(5)])
    saved = first.saved[moment]
    path, count, step = saved[len(saved) // 2]
    _, resumed, rows, state = runs.fit(each, checkpoint=path)
    if moment.startswith("out of"):  # with an additional validation
        assert batches(first.events) + batches(resumed.events) == batches(whole.events), moment
    else:
        assert resumed.events == whole.events[count:], moment
    for part in ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers", "global_step", "epoch"):
        assert_equal(state.get(part), whole_state.get(part), f"{moment}: {part}")
    assert set(rows) <= set(whole_rows), moment
    assert {row for row in whole_rows if row[0] >= step} <= set(rows), moment


def batches(events: list[Any]) -> list[Any]:
    return [event for event in events if event[0] == "batch"]


RUNS = [(each, [each["saved"]]) for each in all_combinations()][::EVERY] if EVERY else covering_moments()
"""Runs, and the moments to save each of them at."""


def name_of(value: Combination | list[str]) -> str:
    return ",".join(value.values() if isinstance(value, dict) else value)


@pytest.mark.slow
@pytest.mark.parametrize(("each", "moments"), RUNS, ids=name_of)
def test_resumed_run_equals_an_uninterrupted_one(each, moments, tmp_path, tiny_config):
    check(Runs(tmp_path, tiny_config), each, moments)
