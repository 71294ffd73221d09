"""Samplers and random generators of data loading."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from torch.utils.data import DataLoader, Dataset

from perceiver_plugins.sdk.data.loading import (
    BatchDataset,
    EpochSampler,
    EvaluationSampler,
    batches_trained,
    example_rng,
    identity_collate,
    loader_generator,
)

SIZE, BATCH = 14, 3  # four batches an epoch, two examples left out


def keys(sampler: EpochSampler, epoch: int = 0) -> list[tuple[int, int]]:
    sampler.set_epoch(epoch)
    return list(sampler)


def test_order_is_a_function_of_seed_and_epoch() -> None:
    state = torch.get_rng_state()
    assert keys(EpochSampler(50, 5, seed=1), 3) == keys(EpochSampler(50, 5, seed=1), 3)
    assert keys(EpochSampler(50, 5, seed=1), 3) != keys(EpochSampler(50, 5, seed=2), 3)
    first, second = keys(EpochSampler(50, 5), 0), keys(EpochSampler(50, 5), 1)
    assert [index for _, index in first] != [index for _, index in second]
    assert {index for _, index in first} == set(range(50))
    assert {epoch for epoch, _ in second} == {1}
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("size", "batch_size", "ranks", "expected"),
    [(10, 3, 1, 9), (9, 3, 1, 9), (2, 3, 1, 2), (3, 3, 1, 3), (1, 8, 2, 1), (7, 2, 2, 2), (5, 4, 2, 3)],
)
def test_incomplete_last_batch_is_dropped_unless_it_is_the_only_one(
    size: int, batch_size: int, ranks: int, expected: int
) -> None:
    for rank in range(ranks):
        sampler = EpochSampler(size, batch_size, num_replicas=ranks, rank=rank)
        assert len(sampler) == len(list(sampler)) == expected


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_split_the_batches_of_a_single_process(ranks: int) -> None:
    single = keys(EpochSampler(61, 4 * ranks, seed=5), 2)
    shares = [keys(EpochSampler(61, 4, seed=5, num_replicas=ranks, rank=rank), 2) for rank in range(ranks)]
    for step in range(len(single) // (4 * ranks)):
        together = [key for share in shares for key in share[step * 4 : step * 4 + 4]]
        assert sorted(together) == sorted(single[step * 4 * ranks : (step + 1) * 4 * ranks])


def test_iteration_resumes_at_the_progress() -> None:
    whole = [keys(EpochSampler(SIZE, BATCH, seed=3), epoch) for epoch in range(3)]
    done = 6
    sampler = EpochSampler(SIZE, BATCH, seed=3, progress=lambda: done)
    assert sampler.state == (1, 2)
    assert list(sampler) == list(sampler) == whole[1][2 * BATCH :]
    assert len(sampler) == 4 * BATCH
    done = 8
    assert list(sampler) == whole[2]
    limited = EpochSampler(SIZE, BATCH, seed=3, limit_batches=3, progress=lambda: done)
    assert limited.state == (2, 2)
    assert list(limited) == whole[2][2 * BATCH : 3 * BATCH]
    assert EpochSampler(SIZE, BATCH, limit_batches=0.5).batches_per_epoch == 2


@pytest.mark.parametrize(("size", "batch_size"), [(0, 1), (5, 0)])
def test_invalid_sizes_are_rejected(size: int, batch_size: int) -> None:
    with pytest.raises(ValueError, match="=0"):
        EpochSampler(size, batch_size)


def test_example_rng_is_a_function_of_its_arguments() -> None:
    state = np.random.get_state()[1].copy()
    draws = {
        arguments: tuple(example_rng(*arguments).integers(2**60, size=4))
        for arguments in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, -1, 0), (2**64 - 1, 5, 10**12)]
    }
    assert len(set(draws.values())) == len(draws)
    assert all(tuple(example_rng(*a).integers(2**60, size=4)) == d for a, d in draws.items())
    # neighbours are independent
    uniform = np.array([example_rng(0, 0, index).random() for index in range(2000)])
    assert abs(uniform.mean() - 0.5) < 0.03
    assert abs(np.corrcoef(uniform[1:], uniform[:-1])[0, 1]) < 0.1
    assert (np.random.get_state()[1] == state).all()


class Squares(BatchDataset):
    def __len__(self) -> int:
        return 7

    def batch(self, epoch: int, indices: np.ndarray) -> dict[str, Any]:
        return {"epoch": torch.full((len(indices),), epoch), "of": {"square": torch.from_numpy(indices**2)}}


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_requests_whole_batches(workers: int) -> None:
    sampler = EpochSampler(7, 3, seed=4)
    expected = keys(sampler, 5)
    loader = DataLoader(Squares(), sampler=sampler, batch_size=3, num_workers=workers, collate_fn=identity_collate)
    batches = list(loader)
    assert [batch["epoch"].tolist() for batch in batches] == [[5] * 3] * 2
    assert [number for batch in batches for number in batch["of"]["square"]] == [index**2 for _, index in expected]


def test_single_example_has_no_batch_dimension() -> None:
    example = Squares()[4, 6]
    assert (example["epoch"].shape, example["of"]["square"].item()) == ((), 36)
    assert int(Squares()[3]["epoch"]) == -1  # evaluation


# With Lightning: a resumed run sees the same batches as an uninterrupted one


class Keys(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, key: Any) -> torch.Tensor:
        return torch.tensor(key)


class KeysDataModule(LightningDataModule):
    def __init__(self, workers: int) -> None:
        super().__init__()
        self.workers = workers

    def train_dataloader(self) -> DataLoader:
        limit = self.trainer.limit_train_batches
        sampler = EpochSampler(
            SIZE, BATCH, seed=1, limit_batches=limit, progress=partial(batches_trained, self.trainer)
        )
        return DataLoader(
            Keys(),
            batch_size=BATCH,
            sampler=sampler,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            generator=loader_generator(0),
        )

    def val_dataloader(self) -> DataLoader:
        return DataLoader(range(2), batch_size=2, generator=loader_generator(0))  # type: ignore[arg-type]


class Recorder(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[Any] = []
        self.global_draws: list[float] = []

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        self.seen.append(batch.tolist())
        return self.weight * batch.sum()

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 1e-3)


class SaveAt(Callback):
    """Callback that saves a checkpoint each time a hook is called."""

    def __init__(self, folder: Path, hook: str) -> None:
        self.folder = folder
        self.hook = hook
        self.count = 0
        setattr(self, hook, self.save)

    def save(self, trainer: Trainer, *_: Any) -> None:
        self.count += 1
        trainer.save_checkpoint(self.folder / f"{self.count}.ckpt")


def run(workers: int, callbacks: list[Callback], ckpt_path: Path | None = None, **options: Any) -> list[Any]:
    module = Recorder()
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, KeysDataModule(workers), ckpt_path=ckpt_path)
    return module.seen


EPOCHS: dict[str, Any] = {"max_epochs": 2}
STEPS: dict[str, Any] = {"max_steps": 9, "max_epochs": -1}
VALIDATION_WITHIN_EPOCHS = STEPS | {"val_check_interval": 3, "check_val_every_n_epoch": None}
LIMITED: dict[str, Any] = {"max_epochs": 3, "limit_train_batches": 3, "accumulate_grad_batches": 2}


@pytest.mark.parametrize(
    ("options", "hook"),
    [
        (EPOCHS, "on_train_batch_end"),
        (EPOCHS, "on_validation_end"),
        (STEPS, "on_train_epoch_end"),
        (VALIDATION_WITHIN_EPOCHS, "on_validation_end"),
        (LIMITED, "on_train_batch_end"),
        (LIMITED, "on_train_epoch_end"),
    ],
    ids=str,
)
def test_resumed_training_sees_the_remaining_batches(options: dict[str, Any], hook: str, tmp_path: Path) -> None:
    save = SaveAt(tmp_path, hook)
    alone = run(0, [save], **options)
    assert save.count
    for number in range(1, save.count + 1):
        checkpoint = tmp_path / f"{number}.ckpt"
        loops = torch.load(checkpoint, weights_only=True)["loops"]
        done = loops["fit_loop"]["epoch_loop.batch_progress"]["total"]["processed"]
        assert run(0, [], checkpoint, **options) == alone[done:], f"resumed after batch {done}"


@pytest.mark.slow
def test_resumed_training_with_worker_processes(tmp_path: Path) -> None:
    save = SaveAt(tmp_path, "on_train_batch_end")
    alone = run(2, [save], max_epochs=2)
    assert alone == run(0, [], max_epochs=2)
    for done in (2, 4):
        assert run(2, [], tmp_path / f"{done}.ckpt", max_epochs=2) == alone[done:]


@pytest.mark.parametrize(("size", "ranks"), [(1, 2), (7, 3), (8, 4), (5, 1)])
def test_evaluation_is_split_evenly_without_repetition(size, ranks):
    shares = [list(EvaluationSampler(size, ranks, rank)) for rank in range(ranks)]
    assert len({len(share) for share in shares}) == 1
    assert sorted(index for share in shares for index in share if index < size) == list(range(size))
