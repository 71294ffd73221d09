"""Training and evaluation of causal models, with a stub of the model."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, Trainer
from torch import Tensor, nn

from perceiver_plugins.checkpoints.random_data import RandomDataModule
from perceiver_plugins.generation.lightning import shorten
from perceiver_plugins.sdk.data.causal import WindowRule
from perceiver_plugins.text import TextDecoderConfig, TextEncoderConfig
from perceiver_plugins.text.causal import LitCausalLanguageModel
from perceiver_plugins.text.data import CausalTextFilesDataModule, TextFilesDataModule
from perceiver_registry import UserError

RULE = WindowRule(23, 7, 3)
VOCAB_SIZE = 262


class StubModel(nn.Module):
    """Causal model whose logits depend on the first input and the first latent."""

    def __init__(self, rule: WindowRule) -> None:
        super().__init__()
        self.config = SimpleNamespace(max_seq_len=rule.max_seq_len, num_latents=rule.num_latents, stride=rule.stride)
        generator = torch.Generator().manual_seed(3)
        self.embedding = nn.Parameter(torch.randn(VOCAB_SIZE, 5, generator=generator))
        self.output = nn.Parameter(torch.randn(5, VOCAB_SIZE, generator=generator))
        self.sizes: list[tuple[int, int]] = []

    def forward(self, batch: dict[str, Tensor], prefix_length: int = 0, all_outputs: bool = False) -> Tensor:
        assert batch.keys() == {"input_ids"}
        num_inputs = batch["input_ids"].shape[1]
        assert num_inputs <= self.config.max_seq_len
        assert all_outputs or 0 < num_inputs - prefix_length <= self.config.num_latents
        self.sizes.append((num_inputs, 0 if all_outputs else prefix_length))
        read = self.embedding[batch["input_ids"]].cumsum(dim=1)[:, 0 if all_outputs else prefix_length :]
        return read.sin().cumsum(dim=1).cos() @ self.output


class LitStub(LitCausalLanguageModel):
    """Causal language model with a stub. Checkpoints name a registered task."""

    task = "mlm"
    model: StubModel

    def build(self, config: Any) -> nn.Module:
        return StubModel(RULE)


def create(**options: Any) -> LitStub:
    return LitStub(TextEncoderConfig(), TextDecoderConfig(), **{"num_samples": 0, **options})


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERCEIVER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.mkdir()
    (path / "train.txt").write_text("Some text to train on, of which there is enough. " * 9)
    (path / "a.txt").write_text("Wörter zum Prüfen, 23 Stück und mehr: " * 3)
    (path / "b.txt").write_text("kurz")
    return path


def data(folder: Path, **options: Any) -> CausalTextFilesDataModule:
    return CausalTextFilesDataModule(
        str(folder / "train.txt"),
        [str(folder / "a.txt"), str(folder / "b.txt")],
        str(folder / "a.txt"),
        max_seq_len=23,
        **{"batch_size": 4, "num_workers": 0, **options},
    )


def trainer(**options: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def plain_loss(model: nn.Module, ids: list[int]) -> tuple[float, int]:
    """Sum the loss token by token, each from what the model reads when it generates; count the tokens."""

    def grid(t: int, size: int) -> int:
        return RULE.stride * math.ceil(max(0, t - size) / RULE.stride)

    total, count = 0.0, 0
    for t in range(1, len(ids)):
        window, latents = grid(t, RULE.max_seq_len), grid(t, RULE.num_latents)
        logits = model({"input_ids": torch.tensor([ids[window:t]])}, prefix_length=latents - window)[0, -1]
        if ids[t] != 1:
            total -= float(logits.double().log_softmax(dim=0)[ids[t]])
            count += 1
    return total, count


@pytest.mark.parametrize("valid_batch_size", [1, 5])
@torch.no_grad()
def test_evaluation_equals_generation(valid_batch_size: int, folder: Path) -> None:
    module = create()
    texts = [(folder / f"{name}.txt").read_bytes() for name in "ab"]
    datamodule = data(folder, valid_batch_size=valid_batch_size)
    for stage, files in (("val", texts), ("test", texts[:1])):
        ids = [token for text in files for token in (1, *(byte + 6 for byte in text), 2)]
        total, count = plain_loss(module.model, ids)
        run = trainer()
        (results,) = (run.validate if stage == "val" else run.test)(module, datamodule, verbose=False)
        assert results[f"{stage}_loss"] == pytest.approx(total / count, rel=1e-5)
        assert results[f"{stage}_perplexity"] == pytest.approx(math.exp(total / count), rel=1e-4)
        size = sum(map(len, files))
        assert results[f"{stage}_bits_per_byte"] == pytest.approx(total / math.log(2) / size, rel=1e-5)


def test_loss_on_all_inputs(folder: Path) -> None:
    module = create(loss_on="all", short_share=0.0)
    datamodule = data(folder)
    datamodule.prepare_data()
    datamodule.setup()
    module.check_data(datamodule)
    batch = next(iter(datamodule.train_dataloader()))
    assert batch["labels"].shape == (4, 23)
    loss = module.loss_sum(batch)
    assert loss.count == (batch["labels"] != -100).sum()
    assert module.model.sizes == [(23, 0)]
    module.eval()
    module.evaluate(next(iter(datamodule.val_dataloader())), "val")
    assert module.model.sizes[1][0] - module.model.sizes[1][1] <= 7


def test_short_batches() -> None:
    batch = {"input_ids": torch.arange(46).reshape(2, 23), "labels": torch.arange(14).reshape(2, 7)}
    lengths = []
    for step in range(300):
        short = shorten(batch, 7, 0.5, (4, step))
        length = short["input_ids"].shape[1]
        lengths.append(length)
        assert torch.equal(short["input_ids"], batch["input_ids"][:, -length:])
        assert torch.equal(short["labels"], batch["labels"])
        assert torch.equal(short["input_ids"], shorten(batch, 7, 0.5, (4, step))["input_ids"])
    assert set(lengths) == set(range(7, 24))
    assert 0.4 < sum(length < 23 for length in lengths) / 300 < 0.6
    assert all(shorten(batch, 7, 0.0, (4, step)) is batch for step in range(9))
    everything = {**batch, "labels": batch["input_ids"]}
    assert any(
        len({len(row) for value in shorten(everything, 7, 1.0, (4, step)).values() for row in value}) == 1
        for step in range(9)
    )
    few = {name: value[:, :5] for name, value in batch.items()}
    assert shorten(few, 7, 1.0, (4, 0)) is few


def test_random_data() -> None:
    module = create()
    module.check_data(RandomDataModule())
    generator = torch.Generator().manual_seed(0)
    batch = {"input_ids": torch.randint(VOCAB_SIZE, (3, 19), generator=generator)}
    batch["labels"] = module.example_labels(batch, generator)
    assert torch.equal(batch["labels"][:, :-1], batch["input_ids"][:, -6:])
    loss = module.evaluate(batch, "val")
    assert loss.count == 21
    assert module.model.sizes == [(19, 12)]
    assert module.metrics["val"]["bits_per_byte"].compute() == pytest.approx(float(loss.mean) / math.log(2))


class SaveEachStep(Callback):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")


@pytest.mark.slow
def test_training_resumes_exactly(folder: Path, tmp_path: Path) -> None:
    def fit(workers: int, step: int | None = None) -> LitStub:
        module = create(short_share=0.5)
        save = [SaveEachStep(tmp_path)] if workers == 0 else []
        path = tmp_path / f"{step}.ckpt" if step else None
        run = trainer(max_steps=20, callbacks=save, limit_val_batches=0)
        run.fit(module, data(folder, num_workers=workers), ckpt_path=path, weights_only=True)
        return module

    uninterrupted = fit(0)
    assert len(set(uninterrupted.model.sizes)) > 5
    for workers, step in ((1, 5), (2, 17)):
        resumed = fit(workers, step)
        assert resumed.model.sizes == uninterrupted.model.sizes[step:]
        assert torch.equal(resumed.model.embedding, uninterrupted.model.embedding)
        assert torch.equal(resumed.model.output, uninterrupted.model.output)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"short_share": 1.5}, "short_share=1.5 must be at least 0"),
        ({"loss_on": "first"}, "loss_on='first' must be 'last' or 'all'"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        create(**options)


def test_other_data_is_refused(folder: Path) -> None:
    module = create()
    with pytest.raises(UserError, match=r"--data: TextFilesDataModule has no windows of tokens"):
        module.check_data(TextFilesDataModule(str(folder)))
    with pytest.raises(UserError, match=r"--data\.max_seq_len: 512 is more than the model reads, 23"):
        module.check_data(CausalTextFilesDataModule(str(folder)))
