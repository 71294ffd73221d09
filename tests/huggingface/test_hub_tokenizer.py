"""Tokenizers saved for the hub encode texts as in training by default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn
from transformers import PerceiverTokenizer

from perceiver_plugins.huggingface import ZooTokenizer
from perceiver_plugins.huggingface.tokenizers import create_tokenizer
from perceiver_plugins.text.reading import TextReader
from perceiver_plugins.text.tokenizers import load_tokenizer, serialize_tokenizer

MAX_LENGTH = 40
TEXTS = [
    "plain",
    "ä€😀 \t\n\x00\x7f\u2028 ende",
    " starts and ends with spaces ",
    "[CLS] a [SEP][PAD]",
    "der Bär näht " * 9,
]


def description(tokenizer: Any, **values: Any) -> dict[str, Any]:
    """Return a data module's description."""
    plain = {"max_seq_len": MAX_LENGTH, "padding_side": "right", "truncation_side": "right"}
    return {"tokenizer": serialize_tokenizer(tokenizer), **plain, **values}


def saved(data: dict[str, Any], folder: Path, masks: bool = False) -> ZooTokenizer:
    """Return the tokenizer after a round trip through a folder."""
    create_tokenizer(data, MAX_LENGTH, masks).save_pretrained(folder)
    return ZooTokenizer.from_pretrained(folder)


# Both values of each option, with both kinds of tokenizers.
@pytest.mark.parametrize(
    ("kind", "special_tokens", "end_token", "truncation_side", "padding_side"),
    [
        ("bytes", False, False, "left", "left"),
        ("bytes", False, True, "right", "right"),
        ("bytes", True, False, "right", "left"),
        ("bytes", True, True, "left", "right"),
        ("subwords", False, False, "right", "right"),
        ("subwords", False, True, "left", "left"),
        ("subwords", True, False, "left", "right"),
        ("subwords", True, True, "right", "left"),
    ],
)
def test_encoding_equals_that_of_the_reader(
    kind: str,
    special_tokens: bool,
    end_token: bool,
    truncation_side: str,
    padding_side: str,
    subwords: Path,
    tmp_path: Path,
) -> None:
    original = PerceiverTokenizer() if kind == "bytes" else load_tokenizer(str(subwords))
    ends = {"add_special_tokens": special_tokens, "add_eos_token": end_token}
    data = description(original, padding_side=padding_side, truncation_side=truncation_side, **ends)
    ours = saved(data, tmp_path)(TEXTS, truncation=True, padding=True, return_tensors="pt")
    reader = TextReader(data, nn.Identity())  # type: ignore[arg-type]
    expected = reader.collate([reader.read(text) for text in TEXTS])
    assert {*ours} == {*expected} == {"input_ids", "attention_mask"}
    for name in ours:
        np.testing.assert_array_equal(ours[name], expected[name])
    assert ours["input_ids"].shape[1] == MAX_LENGTH


def test_byte_tokenizer_keeps_token_ids(tmp_path: Path) -> None:
    original = PerceiverTokenizer()
    ours = saved(description(original), tmp_path, masks=True)
    assert len(ours) == len(original) == 262
    for text in ("a [MASK] cat", "[MASK][MASK]näht", "Ende [MASK]", *TEXTS):
        ids = ours(text)["input_ids"]
        assert ids == original(text, add_special_tokens=False)["input_ids"], text
        assert ours.decode(ids) == original.decode(ids)
        assert ours.decode(ids, skip_special_tokens=True) == original.decode(ids, skip_special_tokens=True)
    assert ours.mask_token_id == original.mask_token_id
    assert ours.pad_token_id == original.pad_token_id
    rng = np.random.default_rng(0)
    for _ in range(20):
        text = "".join(map(chr, rng.integers(1, 0xD7FF, size=30)))
        assert ours(text)["input_ids"] == original(text, add_special_tokens=False)["input_ids"]


def test_text_with_masks_has_no_end_token(tmp_path: Path) -> None:
    """As in ``perceiver predict``: the text may continue."""
    data = description(PerceiverTokenizer(), add_eos_token=True)
    assert saved(data, tmp_path, masks=True)("a")["input_ids"] == [6 + ord("a")]
    assert saved(data, tmp_path, masks=False)("a")["input_ids"] == [6 + ord("a"), 2]


def test_max_length_is_saved(tmp_path: Path) -> None:
    assert saved(description(PerceiverTokenizer()), tmp_path).model_max_length == MAX_LENGTH
