"""Defaults for texts by the size of the training data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perceiver_plugins.sdk.sizing import DataSize
from perceiver_plugins.text.tokenizers import byte_offset
from perceiver_registry import SizedDefaults

TASKS = ("text-classification", "classification", "regression")
"""Tasks that have a rule."""

WORD_MODEL = {
    "model.num_latents": 8,
    "model.num_latent_channels": 64,
    "model.encoder.num_input_channels": 64,
    "model.encoder.num_self_attention_heads": 4,
    "model.encoder.num_self_attention_layers_per_block": 1,
    "model.encoder.init_scale": 0.02,
    "model.decoder.num_output_query_channels": 64,
    "model.decoder.pool_inputs": True,
    "optimizer.weight_decay": 0.1,
}
"""Defaults for words and pieces of words (``python -m benchmarks own-data --part=tune``). Larger models are not better
with up to 25,000 texts. With a larger initialisation, embeddings of rare words change too little."""

FEW_CLASSES = 10
"""Number of classes up to which models overfit early. With 2 and 4 classes, a token dropout of 0.5 is better than 0.3
by 1 to 2 points of accuracy. With 77 and 150 classes of short texts, 0.3 is better by 0.5 to 1 points. The number
itself is arbitrary."""

TRAINED_EXAMPLES_OF_FEW_CLASSES = 32_000
"""Examples to train on with few classes, repetitions included."""


def size_rule(datamodule: Any, task: str, values: Mapping[str, Any]) -> SizedDefaults | None:
    """Return the defaults for texts with a class or numbers; None for other tasks and data of unknown size.

    Args:
        datamodule: the data module.
        task: name of the task.
        values: values of the run by dotted flag.
    """
    size = DataSize.of(datamodule) if task in TASKS else None
    if size is None:
        return None
    tokenizer = getattr(datamodule, "tokenizer", None)
    has_words = tokenizer is not None and byte_offset(tokenizer) is None
    return SizedDefaults(size.describe("text"), choose_defaults(size, has_words))


def choose_defaults(size: DataSize, has_words: bool) -> dict[str, Any]:
    """Return the defaults for texts, by dotted flag.

    Args:
        size: size of the training data.
        has_words: tokens are words or pieces of words, not bytes.
    """
    if not has_words:
        return size.duration(size.epochs())
    few_classes = size.num_classes is not None and size.num_classes <= FEW_CLASSES
    token_dropout = {"model.encoder.token_dropout": 0.5 if few_classes else 0.3}
    epochs = size.epochs(TRAINED_EXAMPLES_OF_FEW_CLASSES) if few_classes else size.epochs()
    return {**WORD_MODEL, **token_dropout, **size.smoothing(), **size.duration(epochs)}
