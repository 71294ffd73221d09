"""Masked language modeling: which tokens are hidden, and what is shown in their place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from perceiver_plugins.sdk.data.loading import IGNORED
from perceiver_plugins.text.data.encoding import NO_WORD, WORD_START


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
        self,
        input_ids: np.ndarray,
        word_parts: np.ndarray,
        inside: np.ndarray,
        chances: Sequence[np.random.Generator],
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mask a batch of examples.

        Args:
            input_ids: (b, n) the tokens, each example from its beginning on.
            word_parts: (b, n) what each is part of, see :mod:`perceiver_plugins.text.data.encoding`.
            inside: (b, n) bool, False after the end of an example that is shorter than others.
            chances: (b) where each example's chance comes from; nothing else is drawn from. So what becomes of an
                example does not depend on the others.

        Returns:
            What the model sees, and what it is to predict: (b, n) int64 each, the latter -100 where it is not
            asked.
        """
        shown = input_ids.astype(np.int64)
        units, counts = self._units(shown, word_parts, inside)
        chosen, fate = np.empty((2, counts.sum()))
        ends = np.cumsum(counts)
        for rng, begin, end in zip(chances, (ends - counts).tolist(), ends.tolist(), strict=True):
            rng.random(out=chosen[begin:end])
            if begin < end and chosen[begin:end].min() >= self.mask_prob:
                chosen[begin + rng.integers(end - begin)] = 0.0
            rng.random(out=fate[begin:end])

        # The last ones are those of what is no unit.
        chosen, fate = np.append(chosen, 1.0)[units], np.append(fate, 1.0)[units]
        predicted = chosen < self.mask_prob
        labels = np.where(predicted, shown, IGNORED)
        shown[predicted & (fate < 0.8)] = self.mask_token_id
        replaced = predicted & (fate >= 0.8) & (fate < 0.9)
        numbers = zip(chances, replaced.sum(axis=1).tolist(), strict=True)
        drawn = [rng.integers(len(self.replacements), size=number) for rng, number in numbers if number]
        shown[replaced] = self.replacements[np.concatenate([*drawn, np.zeros(0, np.int64)])]
        return shown, labels

    def _units(
        self, input_ids: np.ndarray, word_parts: np.ndarray, inside: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The words or tokens that may be chosen.

        Returns:
            The number (b, n) of the one that each token belongs to, counted from 0 through all examples, -1: none; and
            how many there are in each example (b,).
        """
        ordinary = ~self.special[input_ids] & inside
        members = starts = ordinary
        if self.whole_words:
            words = (word_parts != NO_WORD) & ordinary
            first = word_parts == WORD_START
            first[:, :1] = True  # a chunk may begin within a word; what is left of it there is a word too
            # Where there is nothing but white space, its tokens, so that there is something to predict.
            blank = ~words.any(axis=1, keepdims=True)
            members, starts = np.where(blank, ordinary, words), np.where(blank, ordinary, words & first)
        return np.where(members, np.cumsum(starts).reshape(starts.shape) - 1, -1), starts.sum(axis=1)
