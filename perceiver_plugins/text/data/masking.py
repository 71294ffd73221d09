"""Masking of tokens for masked language modelling."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from perceiver_plugins.sdk.data.loading import IGNORED
from perceiver_plugins.text.data.encoding import NO_WORD, WORD_START


class Masker:
    """Chooses tokens or whole words to predict; masks 80 % of them, replaces 10 % by random tokens, keeps 10 %.

    Each token (or word) is chosen with the same probability, independently of the others. If none is chosen in an
    example, one is drawn, so that every example has a label. All tokens of a word are treated alike: all masked, all
    replaced or all kept. Special tokens are never chosen; with whole words, white space is not chosen either, unless
    the example consists of it.

    Args:
        mask_token_id: Id of the mask token.
        special_ids: Ids of the special tokens.
        vocab_size: Size of the vocabulary, special tokens included. Random tokens are drawn from ordinary tokens.
        mask_prob: Probability of choosing a token or word.
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
        self.is_special = np.zeros(vocab_size, dtype=bool)
        self.is_special[[*special_ids, mask_token_id]] = True
        self.ordinary_ids = np.flatnonzero(~self.is_special)

    def __call__(
        self,
        input_ids: np.ndarray,
        word_parts: np.ndarray,
        inside: np.ndarray,
        rngs: Sequence[np.random.Generator],
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mask a batch of examples.

        Args:
            input_ids: (b, m) tokens, padded on the right.
            word_parts: (b, m) word parts of the tokens, see :mod:`perceiver_plugins.text.data.encoding`.
            inside: (b, m) bool, False at padding.
            rngs: (b) random generator of each example. The masks of an example do not depend on the other examples.

        Returns:
            Masked tokens and labels, (b, m) int64 each; labels are -100 where nothing is predicted.
        """
        masked_ids = input_ids.astype(np.int64)
        units, counts = self._units(masked_ids, word_parts, inside)
        choice, treatment = np.empty((2, counts.sum()))
        ends = np.cumsum(counts)
        for rng, begin, end in zip(rngs, (ends - counts).tolist(), ends.tolist(), strict=True):
            rng.random(out=choice[begin:end])
            if begin < end and choice[begin:end].min() >= self.mask_prob:
                choice[begin + rng.integers(end - begin)] = 0.0
            rng.random(out=treatment[begin:end])

        # Tokens outside of units have index -1, the appended value, and are never chosen.
        choice, treatment = np.append(choice, 1.0)[units], np.append(treatment, 1.0)[units]
        predicted = choice < self.mask_prob
        labels = np.where(predicted, masked_ids, IGNORED)
        masked_ids[predicted & (treatment < 0.8)] = self.mask_token_id
        replaced = predicted & (treatment >= 0.8) & (treatment < 0.9)
        sizes = zip(rngs, replaced.sum(axis=1).tolist(), strict=True)
        drawn = [rng.integers(len(self.ordinary_ids), size=size) for rng, size in sizes if size]
        masked_ids[replaced] = self.ordinary_ids[np.concatenate([*drawn, np.zeros(0, np.int64)])]
        return masked_ids, labels

    def _units(
        self, input_ids: np.ndarray, word_parts: np.ndarray, inside: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Group tokens into the units that are chosen: words or single tokens.

        Returns:
            Index (b, m) of each token's unit, counted through all examples, -1 outside of units; and the number of
            units in each example (b,).
        """
        ordinary = ~self.is_special[input_ids] & inside
        members = starts = ordinary
        if self.whole_words:
            words = (word_parts != NO_WORD) & ordinary
            first = word_parts == WORD_START
            first[:, :1] = True  # a chunk may start within a word, whose rest counts as a word
            # Examples that consist of white space are masked by token, so that every example has a label.
            blank = ~words.any(axis=1, keepdims=True)
            members, starts = np.where(blank, ordinary, words), np.where(blank, ordinary, words & first)
        return np.where(members, np.cumsum(starts).reshape(starts.shape) - 1, -1), starts.sum(axis=1)
