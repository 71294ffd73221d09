"""Tokenization of documents and segmentation into words."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from perceiver_plugins.text.tokenizers import byte_offset, check_words, document_end_id

NO_WORD, WORD_START, WORD_REST = 0, 1, 2
"""Word parts of tokens, for whole-word masking: outside of words (special tokens, white space), first token of a word,
and further token of a word. A chunk that starts within a word starts with ``WORD_REST``, and counts that piece as a
word."""


def byte_word_parts(data: np.ndarray) -> np.ndarray:
    """Segment a UTF-8 text into words.

    A word is a run of characters other than Unicode white space (:meth:`str.isspace`), punctuation included. A mask
    of whole words therefore never splits a character, and reveals the length of a word but not its punctuation.

    Args:
        data: (n,) uint8, UTF-8.

    Returns:
        (n,) uint8 of ``NO_WORD``, ``WORD_START`` and ``WORD_REST``.
    """
    space = ((data >= 9) & (data <= 13)) | ((data >= 28) & (data <= 32))
    # All other white space begins with one of four bytes that are rare in most scripts: check only there.
    leads = np.flatnonzero((data == 0xC2) | ((data >= 0xE1) & (data <= 0xE3)))
    if leads.size:
        padded = np.concatenate([data, np.zeros(2, data.dtype)])
        first, second, third = padded[leads], padded[leads + 1], padded[leads + 2]
        two = (first == 0xC2) & ((second == 0x85) | (second == 0xA0))  # NEL, no-break space
        general = (second == 0x80) & (((third >= 0x80) & (third <= 0x8A)) | np.isin(third, (0xA8, 0xA9, 0xAF)))
        three = (
            ((first == 0xE2) & (general | ((second == 0x81) & (third == 0x9F))))  # U+2000..200A, 2028, 2029, 202F, 205F
            | ((first == 0xE1) & (second == 0x9A) & (third == 0x80))  # U+1680
            | ((first == 0xE3) & (second == 0x80) & (third == 0x80))  # U+3000
        )
        for starts, length in ((leads[two], 2), (leads[three], 3)):
            for shift in range(length):
                space[starts + shift] = True
    # 2, or 1 after white space, or 0 at white space. Arithmetic is several times faster than np.where.
    parts = np.full(data.size, WORD_REST, dtype=np.uint8)
    parts[:1] = WORD_START
    parts[1:] -= space[:-1]
    parts *= ~space
    return parts


def word_parts_of_ids(word_ids: Sequence[int | None]) -> np.ndarray:
    """Convert a fast tokenizer's ``word_ids()`` to word parts (n,), uint8."""
    ids = np.array([-1 if word is None else word for word in word_ids], dtype=np.int64)
    same = np.concatenate([[False], ids[1:] == ids[:-1]])
    return np.where(ids < 0, NO_WORD, np.where(same, WORD_REST, WORD_START)).astype(np.uint8)


class DocumentEncoder:
    """Tokenizes documents and concatenates their tokens, for ``datasets.map`` (batched) and streams.

    A byte tokenizer encodes the spelling of a special token in a document ("[MASK]") as ordinary bytes.

    Args:
        tokenizer: A fast tokenizer, or a byte tokenizer.
        words: Segment the text into words; without it, each token counts as a word.
        special_tokens: Enclose each document in the tokenizer's special tokens, such as [CLS] and [SEP].
        end_token: Append EOS (SEP, if the tokenizer has no EOS) to each document.

    Attributes:
        prefix: Special tokens before a document.
        suffix: Special tokens after a document.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        words: bool = True,
        special_tokens: bool = False,
        end_token: bool = False,
    ) -> None:
        if words:
            check_words(tokenizer)
        self.tokenizer = tokenizer
        self.words = words
        self.offset = byte_offset(tokenizer)
        self.prefix, self.suffix = _affixes(tokenizer) if special_tokens else ([], [])
        if end_token:
            self.suffix = [*self.suffix, document_end_id(tokenizer, "leave out add_eos_token")]
        self.special_ids = sorted(set(tokenizer.all_special_ids))
        # 32 bits per token only where the vocabulary needs them.
        self.dtype: type[np.generic] = np.uint16 if len(tokenizer) <= 2**16 else np.int32

    @property
    def columns(self) -> dict[str, str]:
        """Data types of the encoded columns, by name."""
        return {"input_ids": np.dtype(self.dtype).name, "word_parts": "uint8"}

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[np.ndarray]]:
        """Encode a batch of documents, or of consecutive pieces of documents.

        Args:
            batch: ``text``: the texts; ``first`` and ``last`` (optional): whether a text begins and ends a document.
                Without them, each text is a document.

        Returns:
            ``input_ids`` and ``word_parts``, each a list of one array with all tokens of the batch.
        """
        texts = [text or "" for text in batch["text"]]
        if not texts:
            return {"input_ids": [], "word_parts": []}
        ids, parts, lengths = self.encode(texts)
        if self.prefix or self.suffix:
            first, last = (np.array(batch.get(name) or [True] * len(texts)) for name in ("first", "last"))
            stops = np.cumsum(lengths)
            sizes = [len(self.prefix), len(self.suffix)]
            inserted = np.repeat(np.stack([first, last], axis=1), sizes, axis=1)
            indices = np.repeat(np.stack([stops - lengths, stops], axis=1), sizes, axis=1)[inserted]
            special = np.tile([*self.prefix, *self.suffix], (len(texts), 1))[inserted]
            ids, parts = np.insert(ids, indices, special), np.insert(parts, indices, NO_WORD)
        return {"input_ids": [ids], "word_parts": [parts]}

    def encode(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tokenize texts without special tokens around them, and concatenate the tokens.

        Returns:
            Tokens (n,), word parts (n,), and the number of tokens of each text (texts,).
        """
        if self.offset is not None:
            return self._encode_bytes(texts, self.offset)
        encoded = self.tokenizer(
            texts, add_special_tokens=False, truncation=False, return_attention_mask=False, verbose=False
        )
        rows = encoded["input_ids"]
        ids = np.array(list(chain.from_iterable(rows)), dtype=self.dtype)
        parts = np.full(len(ids), WORD_START, dtype=np.uint8)
        if self.words:
            parts = np.concatenate([word_parts_of_ids(encoded.word_ids(index)) for index in range(len(rows))])
        parts[np.isin(ids, self.special_ids)] = NO_WORD
        return ids, parts, np.array([len(row) for row in rows])

    def rows(self, texts: list[str]) -> list[np.ndarray]:
        """Return the tokens (n,) of each text, without special tokens around them."""
        ids, _, lengths = self.encode(texts)
        return np.split(ids, np.cumsum(lengths)[:-1])

    def encode_with_spans(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Tokenize a text without special tokens around it, with the span of characters of each token.

        Returns:
            Tokens (n,), and start and end of each token's characters (n, 2). All bytes of a character have its span.
            White space at the start of a token is not part of its span, unless the token has no other characters.
        """
        if self.offset is None:
            encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            spans = np.array(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2)
            return np.array(encoded["input_ids"], dtype=self.dtype), without_leading_space(text, spans)
        ids, _, _ = self._encode_bytes([text], self.offset)
        begins = np.cumsum(((ids - self.offset) & 0xC0) != 0x80) - 1
        return ids, np.stack([begins, begins + 1], axis=1)

    def _encode_bytes(self, texts: list[str], offset: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        lengths = np.array([len(text) for text in encoded])
        data = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        ids = np.add(data, offset, dtype=self.dtype)
        if not self.words:
            return ids, np.full(data.size, WORD_START, dtype=np.uint8), lengths
        parts = byte_word_parts(data)
        starts = (np.cumsum(lengths) - lengths)[lengths > 0]
        parts[starts] = np.where(parts[starts] == NO_WORD, NO_WORD, WORD_START)
        return ids, parts, lengths


def without_leading_space(text: str, spans: np.ndarray) -> np.ndarray:
    """Remove the white space at the start of spans (n, 2) of a text's characters, unless a span has nothing else."""
    size = len(text)
    indices = np.array([size if character.isspace() else index for index, character in enumerate(text)], dtype=np.int64)
    next_visible = np.append(np.minimum.accumulate(indices[::-1])[::-1], size)
    starts = next_visible[spans[:, 0]]
    return np.stack([np.where(starts < spans[:, 1], starts, spans[:, 0]), spans[:, 1]], axis=1)


def _affixes(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Return the special tokens that the tokenizer adds before and after a text."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a", add_special_tokens=True)["input_ids"]
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return whole[:start], whole[start + len(plain) :]
    return [], []
