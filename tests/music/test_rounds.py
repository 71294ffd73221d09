"""Rounds composed by rule."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest

from perceiver_plugins.music.data import rounds
from perceiver_plugins.music.data.rounds import compose_round
from perceiver_plugins.music.tokens import default_tokenizer


def test_rounds_are_reproducible_and_differ():
    first, again, other = (compose_round(np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert first.size != other.size or (first.pitches != other.pitches).any()


@pytest.mark.parametrize("seed", range(5))
def test_voices_of_a_round_repeat_the_melody(seed):
    notes = compose_round(np.random.default_rng(seed))
    begins = np.unique(notes.onsets.round(6))
    half_beat = np.diff(begins).min()
    begins = np.rint(notes.onsets / half_beat).astype(int)
    # The first voice sings alone for a phrase; the others sing its notes later, some an octave higher.
    last = begins.max() + 1
    for beats in (6, 8, 9, 12):
        phrase = 2 * beats
        melody = {(begin, pitch) for begin, pitch in zip(begins, notes.pitches, strict=True) if begin < phrase}
        sounding = set(zip(begins.tolist(), notes.pitches.tolist(), strict=True))
        delayed = [
            all((begin + voice * phrase, pitch + octave) in sounding for begin, pitch in melody)
            for voice, octave in enumerate((0, 12, 0, 12))
        ]
        if all(delayed) and last > 7 * phrase:
            break
    else:
        pytest.fail("no phrase is repeated by all voices")
    _, changes = default_tokenizer().encode(notes)
    assert set(changes) <= {"notes shortened because the same key is struck again"}


def test_chords_of_rounds_are_consonant():
    """On beats, all phrases have tones of a triad: few of the intervals are seconds, tritones or sevenths."""
    consonant = total = 0
    for seed in range(10):
        notes = compose_round(np.random.default_rng(seed))
        for onset in np.unique(notes.onsets):
            sounding = notes.pitches[(notes.onsets == onset) & (notes.ends - notes.onsets > 0.3)]
            intervals = np.abs(sounding[:, None] - sounding) % 12
            consonant += np.isin(intervals, (0, 3, 4, 5, 7, 8, 9)).sum() - len(sounding)
            total += len(sounding) * (len(sounding) - 1)
    assert total > 1000
    assert consonant / total > 0.95


def test_parallel_fifths_and_octaves_are_rare():
    parallels = transitions = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        pitches = rounds._phrases(rounds._progression(12, rng), np.array(rounds.MAJOR), rng)
        for before, after in pairwise(pitches.tolist()):
            for first, second in combinations(range(4), 2):
                interval = abs(before[first] - before[second]) % 12
                moved = before[first] != after[first]
                is_perfect = interval in (0, 7) and abs(after[first] - after[second]) % 12 == interval
                parallels += moved and is_perfect and (before[first] > before[second]) == (after[first] > after[second])
                transitions += 1
    assert transitions == 20 * 11 * 6
    assert parallels / transitions < 0.02
