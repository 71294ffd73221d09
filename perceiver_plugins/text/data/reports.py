"""Reports on texts that a model reads in part, or not at all."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from transformers import PreTrainedTokenizerBase

from perceiver_plugins.text.data.labelled import LabelledDocuments
from perceiver_plugins.text.tokenizers import MAX_UNKNOWN, unknown_tokens

SAMPLE_TOKENS = 10**6
"""Tokens of a split whose unknown ones are counted; arbitrary."""

MAX_UNKNOWN_TEXTS = 0.01
"""Largest share of a split's texts that may consist mostly of unknown tokens without a report; see ``MAX_UNKNOWN``."""

SPLITS_OF_STAGE = {"fit": ("train", "validation"), "validate": ("validation",), "test": ("test",), "predict": ("test",)}
"""Splits that a stage of Lightning reads."""


def describe_cut_texts(datasets: Mapping[str, LabelledDocuments]) -> str:
    """Return a line with the number of texts of each split that are longer than the model's input; "" without any.

    Args:
        datasets: documents by split, all with the same options.
    """
    cut = []
    for split, dataset in datasets.items():
        lengths = np.diff(dataset.documents.starts) + len(dataset.prefix) + len(dataset.suffix)
        count = int(np.count_nonzero(lengths > dataset.max_seq_len))
        if count:
            cut.append(f"{_share(count, len(lengths))} of {split} have up to {lengths.max():,} tokens")
    if not cut:
        return ""
    first = next(iter(datasets.values()))
    part = "end" if first.truncation_side == "left" else "beginning"
    if any(dataset.shift for dataset in datasets.values()):
        part = f"random part in training and their {part} in evaluation"
    return f"max_seq_len={first.max_seq_len}: {', '.join(cut)}; only their {part} is read (raise it to read more)"


def describe_unknown_texts(datasets: Mapping[str, LabelledDocuments], tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a line with the number of texts of each split that consist mostly of unknown tokens; "" if they are few.

    Args:
        datasets: documents by split.
        tokenizer: their tokenizer.
    """
    counts = []
    for split, dataset in datasets.items():
        starts = dataset.documents.starts
        unknown = unknown_tokens(tokenizer, dataset.documents.input_ids)
        shares = np.add.reduceat(unknown, starts[:-1], dtype=np.int64) / np.diff(starts)  # no document is empty
        count = int(np.count_nonzero(shares > MAX_UNKNOWN))
        if count > MAX_UNKNOWN_TEXTS * len(shares):
            counts.append(f"{_share(count, len(shares))} of {split}")
    if not counts:
        return ""
    return f"{', '.join(counts)}: more than half of the tokens are unknown to the tokenizer (are they in its language?)"


def describe_unknown_tokens(tokens: Mapping[str, np.ndarray], tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a line with the share of unknown tokens of each split that consists mostly of them; "" without any.

    Args:
        tokens: (n,) tokens by split, of which the first ones are counted.
        tokenizer: their tokenizer.
    """
    shares = {
        split: float(unknown_tokens(tokenizer, input_ids[:SAMPLE_TOKENS]).mean())
        for split, input_ids in tokens.items()
        if len(input_ids)
    }
    high = ", ".join(f"{share:.0%} of the tokens of {split}" for split, share in shares.items() if share > MAX_UNKNOWN)
    return f"{high}: unknown to the tokenizer (is the text in its language?)" if high else ""


def _share(count: int, total: int) -> str:
    return f"{count:,} of {total:,} texts ({count / total:.{0 if count >= 0.01 * total else 2}%})"
