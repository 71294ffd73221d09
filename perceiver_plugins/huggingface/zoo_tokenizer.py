"""Tokenizer of the zoo's models on the hub."""

from __future__ import annotations

from transformers import PreTrainedTokenizerFast


class ZooTokenizer(PreTrainedTokenizerFast):
    """Fast tokenizer, with a class name that ``AutoTokenizer`` finds in all versions of transformers."""

    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012
