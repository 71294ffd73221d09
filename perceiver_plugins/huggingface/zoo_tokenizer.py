"""The tokenizers of the zoo's models on the hub."""

from __future__ import annotations

from transformers import PreTrainedTokenizerFast


class ZooTokenizer(PreTrainedTokenizerFast):
    """A fast tokenizer. Its name, by which ``AutoTokenizer`` finds it, is the same in all versions of transformers."""

    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012
