"""Vectorised batches against plain implementations, one example, document or byte at a time."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from transformers import PerceiverTokenizer

from perceiver_plugins.sdk.data.loading import IGNORED, example_rng
from perceiver_plugins.text.data.chunks import Collator, padded_indices
from perceiver_plugins.text.data.encoding import NO_WORD, WORD_REST, WORD_START, DocumentEncoder
from perceiver_plugins.text.data.labelled import Documents, LabelledDocuments
from perceiver_plugins.text.data.prepared import open_arrays, store

TOKENIZER = PerceiverTokenizer()
CHARACTERS = "ab\u00e9\u65e5\U0001f600. \n\t\x1c\u00a0\u0085\u1680\u2003\u2028\u202f\u205f\u3000\u2030\u3042\u1681"
"""Letters, Unicode white space, and characters that share its first bytes."""


def plain_encoding(
    encoder: DocumentEncoder, texts: list[str], first: list[bool], last: list[bool]
) -> tuple[list[int], list[int]]:
    """Encode texts character by character: tokens and word parts."""
    ids: list[int] = []
    parts: list[int] = []
    for text, begins, ends in zip(texts, first, last, strict=True):
        if begins:
            ids += encoder.prefix
            parts += [NO_WORD] * len(encoder.prefix)
        after_space = True
        for character in text:
            size = len(character.encode())
            ids += [byte + 6 for byte in character.encode()]
            if character.isspace():
                parts += [NO_WORD] * size
            else:
                parts += [WORD_START if after_space else WORD_REST] + [WORD_REST] * (size - 1)
            after_space = character.isspace()
        if ends:
            ids += encoder.suffix
            parts += [NO_WORD] * len(encoder.suffix)
    return ids, parts


@pytest.mark.parametrize(
    "options", [{}, {"special_tokens": True}, {"special_tokens": True, "end_token": True}], ids=str
)
def test_encoding_equals_plain_encoding(options: dict[str, bool]) -> None:
    encoder = DocumentEncoder(TOKENIZER, **options)
    rng = random.Random(3)
    for _ in range(50):
        texts = ["".join(rng.choices(CHARACTERS, k=rng.randrange(12))) for _ in range(rng.randint(1, 9))]
        first, last = ([rng.random() < 0.5 for _ in texts] for _ in range(2))
        encoded = encoder({"text": texts, "first": first, "last": last})
        expected = plain_encoding(encoder, texts, first, last)
        assert (encoded["input_ids"][0].tolist(), encoded["word_parts"][0].tolist()) == expected
        assert encoded["input_ids"][0].dtype == np.uint16
        assert encoded["word_parts"][0].dtype == np.uint8
        assert [row.tolist() for row in encoder.rows(texts)] == [[byte + 6 for byte in text.encode()] for text in texts]


def test_padded_indices_are_slices() -> None:
    values = np.arange(100, 150)
    starts, lengths = np.array([0, 45, 7, 20]), np.array([3, 5, 1, 0])
    indices, inside = padded_indices(starts, lengths)
    rows = [row[kept].tolist() for row, kept in zip(values[indices], inside, strict=True)]
    assert rows == [values[start : start + length].tolist() for start, length in zip(starts, lengths, strict=True)]


def plain_example(documents: Documents, index: int, epoch: int, options: dict[str, Any]) -> tuple[list[int], Any]:
    """Cut one document: tokens and labels."""
    start, stop = documents.starts[index : index + 2].tolist()
    ids = documents.input_ids[start:stop].tolist()
    labels = documents.labels[start:stop].tolist() if documents.by_token else documents.labels[index].tolist()
    prefix, suffix = list(options["prefix"]), list(options["suffix"])
    rng = example_rng(9, epoch, index)
    longest = options["max_seq_len"]
    if options["truncate"]:
        longest = int(rng.integers(options["min_seq_len"], longest + 1))
    longest = max(1, longest - len(prefix) - len(suffix))
    begin = 0
    if len(ids) > longest:
        if options["shift"]:
            begin = int(rng.integers(len(ids) - longest + 1))
        elif options["truncation_side"] == "left":
            begin = len(ids) - longest
    kept = slice(begin, begin + longest)
    if documents.by_token:
        labels = [IGNORED] * len(prefix) + labels[kept] + [IGNORED] * len(suffix)
    return prefix + ids[kept] + suffix, labels


@pytest.mark.parametrize(
    ("kind", "padding_side", "truncation_side", "shift", "truncate", "special"),
    [  # all pairs of options
        ("class", "right", "right", False, False, False),
        ("class", "left", "left", False, True, True),
        ("class", "right", "left", True, False, True),
        ("class", "left", "right", True, True, False),
        ("number", "left", "right", False, False, True),
        ("number", "right", "left", False, True, False),
        ("number", "left", "left", True, False, False),
        ("number", "right", "right", True, True, True),
        ("token", "left", "left", False, False, True),
        ("token", "right", "left", False, False, False),
        ("token", "right", "right", False, True, True),
        ("token", "right", "right", True, False, False),
        ("token", "left", "left", True, True, True),
    ],
)
def test_labelled_batches_equal_plain_examples(
    kind: str,
    padding_side: Literal["left", "right"],
    truncation_side: Literal["left", "right"],
    shift: bool,
    truncate: bool,
    special: bool,
) -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 30, size=20)
    starts = np.cumsum([0, *lengths])
    shape = {"class": 20, "number": (20, 3), "token": starts[-1]}[kind]
    labels = rng.random(shape, np.float32) if kind == "number" else rng.integers(7, size=shape)
    documents = Documents(rng.integers(6, 262, size=starts[-1]).astype(np.uint16), starts, labels, kind == "token")
    options: dict[str, Any] = {
        "max_seq_len": 17,
        "min_seq_len": 5,
        "prefix": (4,) if special else (),
        "suffix": (5, 2) if special else (),
        "truncation_side": truncation_side,
        "shift": shift,
        "truncate": truncate,
    }
    dataset = LabelledDocuments(documents, Collator(0, padding_side), seed=9, **options)
    indices = [3, 19, 0, 7, 7]
    batch = dataset.__getitems__([(2, index) for index in indices])
    examples = [plain_example(documents, index, 2, options) for index in indices]
    longest = max(len(ids) for ids, _ in examples)

    def padded(row: list[int], fill: int) -> list[int]:
        padding = [fill] * (longest - len(row))
        return padding + row if padding_side == "left" else row + padding

    assert batch["input_ids"].tolist() == [padded(ids, 0) for ids, _ in examples]
    assert batch["attention_mask"].tolist() == [padded([1] * len(ids), 0) for ids, _ in examples]
    expected = [padded(row, IGNORED) if kind == "token" else row for _, row in examples]
    assert batch["labels"].tolist() == expected
    assert batch["labels"].dtype == (torch.float32 if kind == "number" else torch.int64)


def test_stored_arrays_round_trip(tmp_path: Path) -> None:
    pieces = [np.arange(5, dtype=np.uint16), np.zeros(0, np.uint16), np.arange(5, 9, dtype=np.uint16)]
    rows = [np.ones((2, 3), np.float32), np.zeros((1, 3), np.float32)]
    store(tmp_path / "train", {"ids": pieces, "labels": rows, "none": [np.zeros(0, np.uint8)]})
    arrays = open_arrays(tmp_path / "train")
    assert {name: values.tolist() for name, values in arrays.items()} == {
        "ids": list(range(9)),
        "labels": [[1.0] * 3] * 2 + [[0.0] * 3],
        "none": [],
    }
    assert arrays["ids"].dtype == np.uint16
    assert open_arrays(tmp_path / "test") == {}
