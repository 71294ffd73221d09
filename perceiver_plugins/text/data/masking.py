"""Masked language modeling: which tokens are hidden, and what is shown in their place."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from perceiver_plugins.text.data.encoding import NO_WORD, WORD_START
from perceiver_plugins.training.loading import IGNORED


class Masker:
    """Chooses tokens or whole words to predict, 80 % of them masked, 10 % replaced by chance, 10 % left as
    they are.

    Each token (or word) is chosen with the same probability, independently of the others; an example with
    none chosen gets one, so that it has something to learn from. A word is hidden as a whole: all of its
    tokens are masked, or all are replaced, or all are left. Special tokens are never chosen; nor is white
    space, with whole words.

    Args:
        mask_token_id: The token that is shown instead.
        special_ids: Ids of the special tokens.
        vocab_size: Size of the vocabulary, special tokens included. Random tokens are drawn from the others.
        mask_prob: Probability of a token or word to be chosen.
        whole_words: Choose words instead of tokens.
    """

    def __init__(
        self,
        mask_token_id: int,
        special_ids: Iterable[int],
        vocab_size: int,
        mask_prob: float = 0.15,
        whole_words: bool = True,
    ) -> None:
        self.mask_token_id = mask_token_id
        self.mask_prob = mask_prob
        self.whole_words = whole_words
        self.special = np.zeros(vocab_size, dtype=bool)
        self.special[[*special_ids, mask_token_id]] = True
        self.replacements = np.flatnonzero(~self.special)

    def __call__(
        self, input_ids: np.ndarray, word_parts: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mask one example.

        Args:
            input_ids: (n,) the tokens.
            word_parts: (n,) what each is part of, see :mod:`perceiver_plugins.text.data.encoding`.
            rng: Where chance comes from; nothing else is drawn from.

        Returns:
            What the model sees, and what it is to predict: (n,) int64 each, the latter -100 where it is not
            asked.
        """
        shown = input_ids.astype(np.int64)
        labels = np.full(len(shown), IGNORED, dtype=np.int64)
        units = self._units(shown, word_parts)
        count = int(units.max(initial=-1)) + 1
        if count == 0:
            return shown, labels

        chosen = rng.random(count) < self.mask_prob
        if not chosen.any():
            chosen[rng.integers(count)] = True
        fate = rng.random(count)

        inside = units >= 0
        predicted = inside & chosen[units]
        masked = predicted & (fate[units] < 0.8)
        replaced = predicted & ~masked & (fate[units] < 0.9)
        labels[predicted] = shown[predicted]
        shown[masked] = self.mask_token_id
        shown[replaced] = rng.choice(self.replacements, size=int(replaced.sum()))
        return shown, labels

    def _units(self, input_ids: np.ndarray, word_parts: np.ndarray) -> np.ndarray:
        """(n,) the number of the word or token that each token belongs to, counted from 0; -1: none."""
        ordinary = ~self.special[input_ids]
        if self.whole_words:
            inside = (word_parts != NO_WORD) & ordinary
            if inside.any():
                # A chunk may begin within a word; what is left of it there is a word too.
                starts = word_parts == WORD_START
                starts[0] |= inside[0]
                return np.where(inside, np.cumsum(starts) - 1, -1)
            # nothing but white space: its tokens, so that there is something to predict
        return np.where(ordinary, np.cumsum(ordinary) - 1, -1)
