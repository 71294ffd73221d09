"""Small models of token sequences and a data module of given examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from perceiver_core import DecoderConfig, PerceiverConfig
from perceiver_plugins.classification.config import ClassificationDecoderConfig
from perceiver_plugins.classification.lightning import LitClassifier
from perceiver_plugins.sdk.data.loading import IGNORED
from perceiver_plugins.sdk.data.module import PerceiverDataModule
from perceiver_plugins.text.config import TextEncoderConfig

VOCAB_SIZE, MAX_SEQ_LEN = 11, 9


class Examples(Dataset):
    """Examples of a batch; beyond the end, the first one with ignored labels."""

    def __init__(self, batch: Mapping[str, Tensor]):
        self.batch = batch

    def __len__(self) -> int:
        return len(self.batch["labels"])

    def __getitem__(self, key: tuple[int, int] | int) -> dict[str, Tensor]:
        index = key[1] if isinstance(key, tuple) else key
        if index < len(self):
            return {name: values[index] for name, values in self.batch.items()}
        labels = self.batch["labels"][0]
        ignored = math.nan if labels.is_floating_point() else IGNORED
        return {**self[0], "labels": torch.full_like(labels, ignored)}


class ExamplesDataModule(PerceiverDataModule):
    """Data module with the examples of one batch in all splits.

    Args:
        batch: the examples.
        batch_size: examples per batch.
        attributes: attributes of the data module, such as num_classes.
    """

    def __init__(self, batch: Mapping[str, Tensor], batch_size: int = 5, **attributes: Any):
        super().__init__(batch_size, num_workers=0)
        vars(self).update(attributes)
        self.split_datasets = dict.fromkeys(("train", "validation", "test"), Examples(batch))


@pytest.fixture
def data_module() -> type[ExamplesDataModule]:
    return ExamplesDataModule


@pytest.fixture(autouse=True)
def _restore_seed_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):  # set first, so that monkeypatch restores it after the run
        monkeypatch.setenv(variable, "0")
        monkeypatch.delenv(variable)


@pytest.fixture
def model_config() -> Callable[..., PerceiverConfig]:
    """Function that creates the config of a small model with a given decoder."""

    def model_config(decoder: DecoderConfig, encoder: Mapping[str, Any] | None = None, **values: Any):
        sizes = {
            "vocab_size": VOCAB_SIZE,
            "max_seq_len": MAX_SEQ_LEN,
            "num_input_channels": 10,
            "num_cross_attention_heads": 2,
            "num_self_attention_heads": 3,
            "num_self_attention_layers_per_block": 1,
        }
        encoder_config = TextEncoderConfig(**(sizes | dict(encoder or {})))
        return PerceiverConfig(encoder_config, decoder, **({"num_latents": 5, "num_latent_channels": 12} | values))

    return model_config


@pytest.fixture
def classifier(model_config, randomise) -> Callable[..., LitClassifier]:
    """Function that creates a classifier with random weights, so that outputs differ between inputs."""

    def classifier(num_classes: int = 4, decoder: Mapping[str, Any] | None = None, **options: Any) -> LitClassifier:
        sizes = {"num_classes": num_classes, "num_output_query_channels": 6, "num_cross_attention_heads": 1}
        config = model_config(ClassificationDecoderConfig(**(sizes | dict(decoder or {}))))
        module = LitClassifier.create(config, **options)
        randomise(module.model)
        return module

    return classifier


@pytest.fixture
def sequences() -> Callable[[int], dict[str, Tensor]]:
    """Function that creates a number of sequences of random lengths."""

    def sequences(number: int) -> dict[str, Tensor]:
        lengths = torch.randint(1, MAX_SEQ_LEN + 1, (number, 1))
        return {
            "input_ids": torch.randint(VOCAB_SIZE, (number, MAX_SEQ_LEN)),
            "attention_mask": (torch.arange(MAX_SEQ_LEN) < lengths).long(),
        }

    return sequences
