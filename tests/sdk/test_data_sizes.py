"""Number of training examples of data modules, known before setup, and of streams."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

from perceiver_plugins.checkpoints.random_data import RandomDataModule
from perceiver_plugins.image.data import DigitsDataModule
from perceiver_plugins.sdk.data import PerceiverDataModule
from perceiver_plugins.sdk.sizing import DataSize
from perceiver_plugins.table import DiabetesDataModule
from perceiver_plugins.text.data import HubTextDataModule, LabelledTextFilesDataModule


@pytest.mark.parametrize("data_type", [DigitsDataModule, DiabetesDataModule])
def test_number_of_training_examples_is_known_before_setup(data_type):
    data, loaded = data_type(), data_type()
    loaded.setup()
    assert data.num_train_examples == len(loaded.split_datasets["train"])
    assert not data.split_datasets


class CountingDataModule(PerceiverDataModule):
    """Data module with five training examples that counts its preparations."""

    prepared = 0

    def prepare_data(self) -> None:
        self.prepared += 1

    def setup(self, stage: str | None = None) -> None:
        self.split_datasets["train"] = TensorDataset(torch.zeros(5))


def test_other_data_is_prepared_once():
    data = CountingDataModule()
    assert [data.num_train_examples, data.num_train_examples, data.prepared] == [5, 5, 1]


def test_random_data_needs_no_model():
    assert RandomDataModule(num_examples=7).num_train_examples == 7


def test_streams_have_no_number_of_examples(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"text": "a"}')
    assert HubTextDataModule(str(tmp_path), streaming=True).num_train_examples is None


@pytest.mark.parametrize(("labels", "target"), [("xyx", "class"), ([0.5, 1.5, 2.5], "number")])
def test_size_of_labelled_texts(labels, target, tmp_path):
    rows: list[dict[str, Any]] = [{"text": "a" * (4 * n + 1), "label": label} for n, label in enumerate(labels)]
    for split in ("train", "val"):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    files = {f"{split}_files": str(tmp_path / f"{split}.jsonl") for split in ("train", "val")}
    data = LabelledTextFilesDataModule(**files, cache_dir=str(tmp_path / "cache"), target=target, max_seq_len=8)
    assert data.num_train_examples == 3
    assert data.mean_train_length == pytest.approx((1 + 5 + 8) / 3)  # one byte per letter, at most 8 of 9


def test_only_data_with_one_class_per_example_has_label_smoothing():
    assert DataSize(10, num_classes=3).smoothing() == {"task.label_smoothing": 0.1}
    assert DataSize(10, num_classes=3, multi_label=True).smoothing() == DataSize(10, num_targets=2).smoothing() == {}


@pytest.mark.parametrize(
    ("examples", "batch_size", "steps"), [(56, 32, 7), (9, 64, 1), (790, 32, 98), (800, 32, None), (320, 1, None)]
)
def test_warm_up_is_at_most_a_tenth_of_the_steps(examples, batch_size, steps):
    duration = DataSize(examples, batch_size=batch_size).duration(epochs=40)
    assert (duration["trainer.max_epochs"], duration.get("lr_scheduler.warmup_steps")) == (40, steps)


def test_size_has_the_batch_size_of_the_data_module():
    data = CountingDataModule(batch_size=3)
    assert DataSize.of(data) == DataSize(5, batch_size=3)
