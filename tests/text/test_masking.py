"""Masking of tokens and words: rules and rates."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import PerceiverTokenizer

from perceiver_plugins.sdk.data.loading import IGNORED, example_rng
from perceiver_plugins.text.data.encoding import NO_WORD, WORD_START, DocumentEncoder
from perceiver_plugins.text.data.masking import Masker

TOKENIZER = PerceiverTokenizer()
TEXT = "The café sells naïve 日本語 words 😀, and a few longer-hyphenated ones… " * 40


def encode(text: str) -> tuple[np.ndarray, np.ndarray]:
    encoded = DocumentEncoder(TOKENIZER)({"text": [text]})
    return encoded["input_ids"][0], encoded["word_parts"][0]


def masker(whole_words: bool, mask_prob: float = 0.15) -> Masker:
    return Masker(TOKENIZER.mask_token_id, TOKENIZER.all_special_ids, len(TOKENIZER), mask_prob, whole_words)


def mask_one(masker: Masker, ids: np.ndarray, parts: np.ndarray, rng: np.random.Generator):
    """Mask a batch of one example."""
    shown, labels = masker(ids[None], parts[None], np.ones((1, len(ids)), bool), [rng])
    return shown[0], labels[0]


def plain_units(masker: Masker, ids: np.ndarray, parts: np.ndarray) -> list[list[int]]:
    """Indices of the tokens of each word; of each ordinary token without words."""
    ordinary = [index for index, token in enumerate(ids) if not masker.is_special[token]]
    words: list[list[int]] = []
    for index in ordinary if masker.whole_words else []:
        if parts[index] != NO_WORD:
            if parts[index] == WORD_START or not words or words[-1][-1] != index - 1:
                words.append([])
            words[-1].append(index)
    return words or [[index] for index in ordinary]


def plain_masks(masker: Masker, ids: np.ndarray, parts: np.ndarray, rng: np.random.Generator):
    """Mask an example unit by unit, with the same random draws as the masker."""
    units = plain_units(masker, ids, parts)
    chosen = [draw < masker.mask_prob for draw in rng.random(len(units))]
    if units and not any(chosen):
        chosen[rng.integers(len(units))] = True
    treatments = rng.random(len(units))
    shown, labels = ids.astype(np.int64), np.full(len(ids), IGNORED)
    replaced = []
    for unit, is_chosen, treatment in zip(units, chosen, treatments, strict=True):
        if is_chosen:
            labels[unit] = ids[unit]
            if treatment < 0.8:
                shown[unit] = masker.mask_token_id
            elif treatment < 0.9:
                replaced += unit
    if replaced:
        shown[replaced] = rng.choice(masker.ordinary_ids, size=len(replaced))
    return shown, labels


@pytest.mark.parametrize("whole_words", [True, False])
@pytest.mark.parametrize("mask_prob", [0.01, 0.7])
def test_batches_equal_plain_masks(whole_words: bool, mask_prob: float) -> None:
    ids, parts = encode(TEXT)
    mask = masker(whole_words, mask_prob)
    rows = [(0, 61), (61, 90), (95, 95), (7, 8), (200, 261), (3, 4)]
    ids, parts = ids.copy(), parts.copy()
    ids[210:215], parts[210:215] = TOKENIZER.eos_token_id, NO_WORD
    blank = ord(" ") + 6
    ids[3], parts[3] = blank, NO_WORD  # a row of white space
    parts[[4, 215]] = WORD_START
    longest = max(stop - start for start, stop in rows)
    batch_ids, batch_parts = np.full((len(rows), longest), 77), np.ones((len(rows), longest), np.uint8)
    inside = np.zeros((len(rows), longest), bool)
    for row, (start, stop) in enumerate(rows):
        batch_ids[row, : stop - start], batch_parts[row, : stop - start] = ids[start:stop], parts[start:stop]
        inside[row, : stop - start] = True
    for epoch in range(20):
        rngs, same = ([example_rng(5, epoch, row) for row in range(len(rows))] for _ in range(2))
        shown, labels = mask(batch_ids, batch_parts, inside, rngs)
        for row, (start, stop) in enumerate(rows):
            expected = plain_masks(mask, ids[start:stop], parts[start:stop], same[row])
            assert (shown[row, : stop - start] == expected[0]).all()
            assert (labels[row, : stop - start] == expected[1]).all()
        assert (labels[~inside] == IGNORED).all()
        assert all(one.random() == two.random() for one, two in zip(rngs, same, strict=True))


@pytest.mark.parametrize(("whole_words", "mask_prob"), [(True, 0.15), (False, 0.5)])
def test_rates_of_choice_and_treatment(whole_words: bool, mask_prob: float) -> None:
    ids, parts = encode(TEXT)
    mask = masker(whole_words, mask_prob)
    eligible = chosen = masked = kept = 0
    replacements = []
    for index in range(40):
        shown, labels = mask_one(mask, ids, parts, example_rng(0, 0, index))
        predicted = labels != IGNORED
        assert (labels[predicted] == ids[predicted]).all()
        assert (shown[~predicted] == ids[~predicted]).all()
        eligible += int((parts != NO_WORD).sum()) if whole_words else len(ids)
        chosen += int(predicted.sum())
        masked += int((shown[predicted] == TOKENIZER.mask_token_id).sum())
        kept += int((shown[predicted] == labels[predicted]).sum())
        replacements += shown[predicted & (shown != TOKENIZER.mask_token_id) & (shown != ids)].tolist()
    assert chosen / eligible == pytest.approx(mask_prob, rel=0.1)
    assert masked / chosen == pytest.approx(0.8, abs=0.03)
    assert len(replacements) / chosen == pytest.approx(0.1, abs=0.03)
    assert kept / chosen == pytest.approx(0.1, abs=0.03)
    assert min(replacements) >= 6
    assert max(replacements) > 250


def test_words_are_masked_whole() -> None:
    ids, parts = encode(TEXT)
    words = np.split(np.arange(len(ids)), np.flatnonzero(parts != 2)[1:])
    for index in range(20):
        shown, labels = mask_one(masker(True), ids, parts, example_rng(1, 0, index))
        for word in words:
            predicted = labels[word] != IGNORED
            assert predicted.all() or not predicted.any()
            is_mask = shown[word] == TOKENIZER.mask_token_id
            assert is_mask.all() or not is_mask.any()
        assert (labels[parts == NO_WORD] == IGNORED).all()


@pytest.mark.parametrize("whole_words", [True, False])
@pytest.mark.parametrize("text", ["x", "ab cd", "   \n", "é", " "])
def test_every_example_has_a_label(text: str, whole_words: bool) -> None:
    ids, parts = encode(text)
    for index in range(30):
        assert (mask_one(masker(whole_words, 0.01), ids, parts, example_rng(0, 0, index))[1] != IGNORED).any()


def test_partial_words_at_borders_are_words() -> None:
    ids, parts = encode("日本語 words")
    # a chunk that starts and ends within a character
    ids, parts = ids[1:-2], parts[1:-2]
    seen = set()
    for index in range(50):
        labels = mask_one(masker(True, 0.5), ids, parts, example_rng(0, 0, index))[1]
        seen.add(tuple(np.flatnonzero(labels != IGNORED)))
    first, second = tuple(range(8)), (9, 10, 11)
    assert seen == {first, second, first + second}


def test_special_tokens_are_never_chosen() -> None:
    ids = np.array([4, 5, 0, 2, 3], dtype=np.uint16)
    for whole_words in (True, False):
        shown, labels = mask_one(masker(whole_words, 1.0), ids, np.zeros(5, np.uint8), example_rng(0, 0, 0))
        assert shown.tolist() == ids.tolist()
        assert (labels == IGNORED).all()


def test_mask_prob_of_one_and_empty_input() -> None:
    ids, parts = encode("a b c")
    assert (mask_one(masker(True, 1.0), ids, parts, example_rng(0, 0, 0))[1] != IGNORED).sum() == 3
    shown, labels = mask_one(masker(True), ids[:0], parts[:0], example_rng(0, 0, 0))
    assert len(shown) == len(labels) == 0


def test_masks_depend_on_generator_alone() -> None:
    ids, parts = encode(TEXT)
    state = np.random.get_state()[1].copy()
    one, two = (mask_one(masker(True), ids, parts, example_rng(3, 1, 7)) for _ in range(2))
    assert (one[0] == two[0]).all()
    assert (one[1] == two[1]).all()
    assert (one[1] != mask_one(masker(True), ids, parts, example_rng(3, 2, 7))[1]).any()
    assert (np.random.get_state()[1] == state).all()
