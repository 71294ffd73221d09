"""Checks of the record and the data of a resumed run."""

from __future__ import annotations

import pytest
import torch
from pytorch_lightning import Callback, seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint, StochasticWeightAveraging

from perceiver_plugins.sdk.tasks.resuming import KEY, check_record, check_stream, read_position
from perceiver_plugins.text import LitLanguageModel
from perceiver_registry import UserError

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*not resumable.*", "ignore:.*many workers.*", "ignore:.*exists and is.*", "ignore:.*LeafSpec.*"
)

STREAM = {"streaming": 1, "batch_size": 2, "num_replicas": 1, "num_workers": 2}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_workers": 0}, r"--data.num_workers: 0, but the checkpoint was saved with 2.*--data.num_workers=2\)"),
        ({"num_replicas": 4}, r"--trainer.devices: 4.*--trainer.devices=1"),
        ({"batch_size": 4}, r"--data.batch_size: 4"),
    ],
)
def test_other_options_of_a_stream_are_rejected(change, message):
    check_stream(STREAM, STREAM)
    with pytest.raises(UserError, match=message):
        check_stream(STREAM, STREAM | change)


def test_prepared_data_does_not_continue_a_stream():
    with pytest.raises(UserError, match=r"streaming: False.*streaming=true"):
        check_stream({"streaming": 1, "batch_size": 2}, {"batch_size": 2})


class Batches(Callback):
    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.seen.append((trainer.current_epoch, batch_idx))


@pytest.fixture
def train(tiny_config, tiny_data, quiet_trainer, tmp_path):
    def train(batch_size: int, checkpoint=None, examples: int | None = None, **options):
        seed_everything(3, verbose=False)
        module = LitLanguageModel.create(tiny_config(), num_samples=0)
        batches = Batches()
        trainer = quiet_trainer(callbacks=[batches], **options)
        data = tiny_data(batch_size=batch_size)
        if examples is not None:
            text = (tmp_path / "train.txt").read_bytes() * 2
            (tmp_path / "other.txt").write_bytes(text[: examples * 32])
            data = tiny_data(batch_size=batch_size, train_files=str(tmp_path / "other.txt"))
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        end = tmp_path / f"end-{len(list(tmp_path.glob('end-*')))}.ckpt"
        trainer.save_checkpoint(end)
        return batches.seen, end

    return train


def test_other_batch_size_continues_the_epoch(train):
    _, checkpoint = train(2, max_steps=8)  # six of the ten examples of the second epoch
    with pytest.warns(UserWarning, match="batch_size 2 -> 1: epoch 1 continues at its batch 6 of 10"):
        seen, _ = train(1, checkpoint, max_epochs=2)
    assert seen == [(1, batch) for batch in range(6, 10)]


@pytest.mark.parametrize("examples", [7, 15])
@pytest.mark.parametrize(
    ("trained", "first", "message"),
    [
        ({"max_steps": 8}, 2, "training continues with epoch 2, of .* batches, without the rest of epoch 1"),
        ({"max_epochs": 2}, 2, "training continues with epoch 2, of . batches$"),
    ],
    ids=["within an epoch", "end of an epoch"],
)
def test_other_number_of_examples_starts_the_next_epoch(train, examples, trained, first, message):
    _, checkpoint = train(2, **trained)
    with pytest.warns(UserWarning, match=f"^training examples 10 -> {examples}: {message}"):
        seen, _ = train(2, checkpoint, examples, max_epochs=4)
    assert seen == [(epoch, batch) for epoch in range(first, 4) for batch in range(examples // 2)]


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_run_on_other_examples_is_resumed_exactly(train, accumulate):
    options = {"max_epochs": 5, "accumulate_grad_batches": accumulate}
    _, checkpoint = train(2, max_steps=7 // accumulate)
    with pytest.warns(UserWarning, match="training examples 10 -> 15"):
        seen, alone = train(2, checkpoint, 15, **options)
    alone = torch.load(alone, weights_only=True)["state_dict"]
    with pytest.warns(UserWarning, match="training examples 10 -> 15"):
        _, within = train(2, checkpoint, 15, **options | {"max_steps": 7 // accumulate + 9})
    rest, end = train(2, within, 15, **options)
    assert seen[-len(rest) :] == rest
    torch.testing.assert_close(torch.load(end, weights_only=True)["state_dict"], alone, rtol=0, atol=0)


@pytest.mark.slow
def test_weight_averaging_is_resumed_within_an_epoch(tiny_config, tiny_data, quiet_trainer, tmp_path):
    def train(checkpoint=None):
        seed_everything(3, verbose=False)
        module = LitLanguageModel.create(tiny_config(), num_samples=0)
        saving = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=7, save_top_k=-1)
        callbacks = [StochasticWeightAveraging(0.01, swa_epoch_start=1), saving]
        trainer = quiet_trainer(callbacks=callbacks, max_epochs=4, enable_checkpointing=True)
        trainer.fit(module, datamodule=tiny_data(batch_size=2), ckpt_path=checkpoint, weights_only=True)
        rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
        return module.state_dict(), rates, callbacks[0].n_averaged

    alone = train()
    torch.testing.assert_close(train(tmp_path / "step=7.ckpt"), alone, rtol=0, atol=0)


def test_damaged_record_is_reported(train):
    _, checkpoint = train(2, max_steps=2)
    content = torch.load(checkpoint, weights_only=True)
    record = content[KEY]
    assert read_position(record).batch == 2
    assert content["epoch"] == 0
    module = torch.nn.Linear(2, 2)
    check_record(record, module)
    shape = {"gradients": {"weight": torch.zeros(3)}}
    types = [{"epoch": "1"}, {"last": 1}, {"metrics": []}, {"loading": {"batch_size": "2"}}]
    for change in ({"batch": -1}, shape, *types):
        with pytest.raises(UserError, match="damaged"):
            check_record({**record, **change}, module)
