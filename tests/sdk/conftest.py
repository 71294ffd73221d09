"""Fixtures: a small text data set and the configuration of a small model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perceiver_core import PerceiverConfig
from perceiver_plugins.text.data import TextFilesDataModule

STEPS_PER_EPOCH = 5


@pytest.fixture(autouse=True)
def _unset_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):  # set first, so that values of a run are reverted
        monkeypatch.setenv(variable, "0")
        monkeypatch.delenv(variable)


@pytest.fixture
def tiny_config(text_config: Callable[..., PerceiverConfig]) -> Callable[..., PerceiverConfig]:
    """Factory of configurations of small byte models."""

    def tiny_config(dropout: float = 0.1, **values: Any) -> PerceiverConfig:
        sizes = {"vocab_size": 262, "max_seq_len": 32, "dropout": dropout}
        return text_config({**sizes, "num_self_attention_layers_per_block": 1}, sizes, **values)

    return tiny_config


@pytest.fixture
def tiny_data(tmp_path: Path) -> Callable[..., TextFilesDataModule]:
    """Factory of data modules with five batches of two examples."""
    text = " ".join(f"word{number % 37} näh" for number in range(100)).encode()
    (tmp_path / "train.txt").write_bytes(text[: STEPS_PER_EPOCH * 2 * 32])
    (tmp_path / "val.txt").write_bytes(text[320:480])

    def tiny_data(**options: Any) -> TextFilesDataModule:
        files = {"train_files": str(tmp_path / "train.txt"), "val_files": str(tmp_path / "val.txt")}
        sizes = {"max_seq_len": 32, "batch_size": 2, "cache_dir": str(tmp_path / "cache")}
        return TextFilesDataModule(**(files | sizes | options))

    return tiny_data
