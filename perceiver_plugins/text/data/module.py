"""The data module that all text data modules share: tokenising, chunks, masks, loaders."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import datasets
from transformers import PreTrainedTokenizerBase

from perceiver_plugins.text.data.chunks import Collator, MaskedChunks
from perceiver_plugins.text.data.encoding import DocumentEncoder
from perceiver_plugins.text.data.masking import Masker
from perceiver_plugins.text.data.prepared import (
    TokenStream,
    cache_folder,
    cache_root,
    open_split,
    prepare,
)
from perceiver_plugins.text.tokenizers import (
    PERCEIVER_TOKENIZER,
    load_tokenizer,
    mask_token_id,
    serialize_tokenizer,
)
from perceiver_plugins.training.data import PerceiverDataModule, check_positive
from perceiver_registry.errors import UserError


class TextDataModule(PerceiverDataModule):
    """Text for masked language modeling.

    Documents are tokenised once (kept in a cache), put in a row and cut into chunks of equal length. Some of
    their tokens are then chosen, of which 80 % are masked, 10 % replaced by a random one, 10 % left as they are.

    Batches are dicts of int64 tensors: ``input_ids`` (b, n), ``attention_mask`` (b, n; 1 where there is a token,
    0 where there is padding) and ``labels`` (b, n; -100 where nothing is to be predicted), n at most
    ``max_seq_len``.

    Masks for validation and test are the same each time, so that their losses can be compared.

    Subclasses say where documents come from: :meth:`source_key` and :meth:`load_documents`.

    Args:
        tokenizer: ``deepmind/language-perceiver`` (UTF-8 bytes, no download), or any tokenizer with a mask
            token: a hub id or a folder. In Python, a tokenizer object serves too.
        max_seq_len: Tokens per example, at most.
        mask_prob: Part of the tokens (or words) that are to be predicted.
        mask_words: Mask whole words (true) or single tokens (false). With bytes, a word is what stands
            between white space.
        static_masking: Mask an example in the same way in each epoch, instead of anew.
        random_train_shift: Begin each training example at a place drawn by chance, anew in each epoch.
        random_train_truncation: Shorten training examples to a length drawn by chance.
        random_min_seq_len: The shortest length that truncation draws. Also the fewest tokens that the last
            chunk of the text must have to be used.
        padding_side: Where batches are padded; null: where the tokenizer does.
        add_special_tokens: Enclose each document in the tokenizer's special tokens, such as [CLS] and [SEP].
        add_eos_token: End each document with the tokenizer's EOS token (SEP, if there is none).
        batch_size: Examples per batch and device, in training.
        valid_batch_size: Examples per batch and device in validation and test; null: the same as batch_size.
        num_workers: Processes per device that load data; null: none on CPU, otherwise up to 8, depending on
            the cores.
        preproc_workers: Processes that tokenise; null: one for small data, otherwise up to 8, depending on
            the cores.
        preproc_batch_size: Documents that are tokenised together.
        cache_dir: Folder for tokenised data; null: $PERCEIVER_CACHE or ~/.cache/perceiver.
        seed: Seed of order and masks; null: the seed of the run (seed_everything), or 0 if there is none.
    """

    cache_name = "text"
    """What the folder in the cache begins with."""

    missing_split: ClassVar[dict[str, str]] = {
        "train": "there is no text for training",
        "validation": "there is too little text to set some aside for validation",
        "test": "there is no test data",
    }
    """What to say where there is nothing in a split."""

    def __init__(
        self,
        tokenizer: str = PERCEIVER_TOKENIZER,
        max_seq_len: int = 256,
        mask_prob: float = 0.15,
        mask_words: bool = True,
        static_masking: bool = False,
        random_train_shift: bool = False,
        random_train_truncation: bool = False,
        random_min_seq_len: int = 16,
        padding_side: Literal["left", "right"] | None = None,
        add_special_tokens: bool = False,
        add_eos_token: bool = False,
        batch_size: int = 64,
        valid_batch_size: int | None = None,
        num_workers: int | None = None,
        preproc_workers: int | None = None,
        preproc_batch_size: int = 1000,
        cache_dir: str | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(batch_size, valid_batch_size, num_workers, seed)
        check_positive(
            max_seq_len=max_seq_len,
            random_min_seq_len=random_min_seq_len,
            preproc_workers=preproc_workers,
            preproc_batch_size=preproc_batch_size,
        )
        if not 0 < mask_prob <= 1:
            raise UserError(f"mask_prob={mask_prob} must be more than 0 and at most 1")
        if random_train_truncation and random_min_seq_len > max_seq_len:
            raise UserError(f"random_min_seq_len={random_min_seq_len} must be at most max_seq_len={max_seq_len}")
        if padding_side not in (None, "left", "right"):
            raise UserError(f"padding_side={padding_side!r} must be 'left', 'right' or null")
        self.max_seq_len = max_seq_len
        self.mask_prob = mask_prob
        self.mask_words = mask_words
        self.static_masking = static_masking
        self.random_train_shift = random_train_shift
        self.random_train_truncation = random_train_truncation
        self.random_min_seq_len = random_min_seq_len
        self.add_special_tokens = add_special_tokens
        self.add_eos_token = add_eos_token
        self.preproc_workers = preproc_workers
        self.preproc_batch_size = preproc_batch_size
        self.cache_dir = cache_dir
        self._tokenizer = tokenizer
        self._padding_side = padding_side

    # what subclasses say

    @abstractmethod
    def source_key(self) -> dict[str, Any]:
        """What determines the documents, in plain data: a change of it means other data in the cache."""

    @abstractmethod
    def load_documents(self, work: Path) -> dict[str, datasets.Dataset]:
        """The documents of the splits ``train``, ``validation`` and, if there is one, ``test``.

        Args:
            work: A folder for temporary files, removed afterwards.

        Returns:
            For each split a data set with the column ``text`` and, if documents come in pieces, ``first`` and
            ``last``.
        """

    # what models and tasks ask

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, loaded at the first use."""
        if isinstance(self._tokenizer, PreTrainedTokenizerBase):
            return self._tokenizer
        return load_tokenizer(self._tokenizer)

    @property
    def vocab_size(self) -> int:
        """Number of tokens, special ones included."""
        return len(self.tokenizer)

    @property
    def padding_side(self) -> Literal["left", "right"]:
        """Where batches are padded."""
        return self._padding_side or ("left" if self.tokenizer.padding_side == "left" else "right")

    def description(self) -> dict[str, Any]:
        """What prediction needs to know about the data, as plain data: it goes into checkpoints."""
        return {
            "tokenizer": serialize_tokenizer(self.tokenizer),
            "max_seq_len": self.max_seq_len,
            "padding_side": self.padding_side,
            "add_special_tokens": self.add_special_tokens,
        }

    # preparation

    @cached_property
    def encoder(self) -> DocumentEncoder:
        """Makes tokens of documents."""
        return DocumentEncoder(self.tokenizer, self.mask_words, self.add_special_tokens, self.add_eos_token)

    @cached_property
    def masker(self) -> Masker:
        """Chooses what is to be predicted."""
        return Masker(
            mask_token_id(self.tokenizer),
            self.tokenizer.all_special_ids,
            self.vocab_size,
            self.mask_prob,
            self.mask_words,
        )

    @cached_property
    def folder(self) -> Path:
        """Where the tokenised data is kept, whatever the options for chunks and masks, which are made on use."""
        key = {
            "source": self.source_key(),
            "tokenizer": serialize_tokenizer(self.tokenizer),
            "mask_words": self.mask_words,
            "add_special_tokens": self.add_special_tokens,
            "add_eos_token": self.add_eos_token,
        }
        return cache_folder(cache_root(self.cache_dir), self.cache_name, key)

    def prepare_data(self) -> None:
        """Tokenise, unless the cache has it already. Lightning calls this in one process per machine."""
        mask_token_id(self.tokenizer)  # a tokenizer that cannot mask is better refused before the work than after it
        prepare(self.folder, self.load_documents, self.encoder, self.preproc_workers, self.preproc_batch_size)

    def setup(self, stage: str | None = None) -> None:
        """Map the tokenised data. Prepares it first where that was not done."""
        if not self.folder.exists():
            self.prepare_data()
        for split in ("train", "validation", "test"):
            stream = open_split(self.folder, split)
            if len(stream):
                self.split_datasets[split] = self.chunks(stream, train=split == "train")

    def chunks(self, stream: TokenStream, train: bool) -> MaskedChunks:
        """The examples of a split."""
        return MaskedChunks(
            stream,
            self.masker,
            self.max_seq_len,
            self.random_min_seq_len,
            self.seed,
            static=self.static_masking or not train,
            shift=self.random_train_shift and train,
            truncate=self.random_train_truncation and train,
        )

    @cached_property
    def collate_fn(self) -> Collator:  # type: ignore[override]
        """Pads examples to the longest of them."""
        return Collator(int(self.tokenizer.pad_token_id or 0), self.padding_side)
