"""Baseline of music models: chorales as notes, and n-grams of tokens."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.music import SIXTEENTH, NGrams, convert_grid


def test_equal_consecutive_cells_of_a_voice_are_one_note() -> None:
    notes = convert_grid([[60, 48], [60, -1], [62, 48], [62, 48]])
    found = zip(notes.onsets / SIXTEENTH, notes.ends / SIXTEENTH, notes.pitches, strict=True)
    assert sorted(found) == [(0, 1, 48), (0, 2, 60), (2, 4, 48), (2, 4, 62)]


@pytest.mark.parametrize("context", [[], [0], [1, 0], [0, 1, 0], [3, 3]])
def test_probabilities_of_all_tokens_sum_to_one(context: list[int]) -> None:
    grams = NGrams(3, 4)
    grams.fit([0, 1, 0, 2, 0, 1, 0, 1, 1])
    logs = np.array([list(grams.log_probabilities([3, *context, token]))[-1] for token in range(4)])
    np.testing.assert_allclose(np.exp(logs).sum(axis=0), 1.0)


def test_probabilities_are_those_of_witten_and_bell() -> None:
    grams = NGrams(1, 4)
    grams.fit([0, 1, 0, 2])
    unigram = (1 + 3 / 4) / (4 + 3)  # token 1: 1 of 4 tokens, 3 kinds, and the uniform distribution
    bigram = (1 + 2 * unigram) / (2 + 2)  # after token 0: 1 of 2 tokens, 2 kinds
    (found,) = grams.log_probabilities([0, 1])
    assert found == pytest.approx([math.log(unigram), math.log(bigram)])
