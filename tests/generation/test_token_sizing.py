"""Number of epochs by the number of training tokens."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from perceiver_plugins.generation.sizing import TRAINED_TOKENS, size_rule
from perceiver_plugins.sdk.sizing import MAX_EPOCHS
from perceiver_plugins.text.data.causal import CausalTextFilesDataModule

VALUES = {"data.batch_size": 16, "model.num_latents": 128}


@pytest.mark.parametrize(
    ("num_tokens", "epochs", "warmup_steps"),
    [(1, MAX_EPOCHS, 1), (10_007, MAX_EPOCHS, 20), (130_001, 15, 96), (600_000, 3, 88), (10**9, 1, None)],
)
def test_few_tokens_are_repeated(num_tokens: int, epochs: int, warmup_steps: int | None) -> None:
    found = size_rule(SimpleNamespace(num_train_tokens=num_tokens), "clm", VALUES)
    assert found is not None
    assert found.facts == f"{num_tokens:,} tokens"
    assert found.defaults["trainer.max_epochs"] == epochs
    assert found.defaults.get("lr_scheduler.warmup_steps") == warmup_steps
    assert epochs in (1, MAX_EPOCHS) or 0.5 < epochs * num_tokens / TRAINED_TOKENS < 1.5


def test_warmup_follows_the_number_of_steps() -> None:
    found = size_rule(SimpleNamespace(num_train_tokens=10**9), "clm", {**VALUES, "trainer.max_steps": 60})
    assert found is not None
    assert found.defaults["lr_scheduler.warmup_steps"] == 6


@pytest.mark.parametrize("data", [SimpleNamespace(), SimpleNamespace(num_train_tokens=None)])
def test_unknown_sizes_have_no_rule(data: SimpleNamespace) -> None:
    assert size_rule(data, "clm", VALUES) is None


def test_tokens_of_files_are_counted(tmp_path: Path) -> None:
    files = {"train_files": str(tmp_path / "a.txt"), "val_files": str(tmp_path / "b.txt")}
    for path in files.values():
        Path(path).write_text("abc" * 50)
    data = CausalTextFilesDataModule(**files, max_seq_len=20, cache_dir=tmp_path / "cache")
    assert data.num_train_tokens == 152  # with the tokens that begin and end the document
