"""The data modules of text: what all share, and text for masked language modelling."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import datasets
from transformers import PreTrainedTokenizerBase

from perceiver_plugins.sdk.data.loading import BatchDataset
from perceiver_plugins.sdk.data.module import PerceiverDataModule, check_positive
from perceiver_plugins.text.data.chunks import Collator, MaskedChunks
from perceiver_plugins.text.data.encoding import DocumentEncoder
from perceiver_plugins.text.data.masking import Masker
from perceiver_plugins.text.data.prepared import (
    Tokens,
    cache_folder,
    cache_root,
    open_split,
    prepare,
)
from perceiver_plugins.text.data.targets import TargetRedirect
from perceiver_plugins.text.tokenizers import (
    PERCEIVER_TOKENIZER,
    load_tokenizer,
    mask_token_id,
    serialize_tokenizer,
)
from perceiver_registry.errors import UserError


class DocumentDataModule(TargetRedirect, PerceiverDataModule):
    """Documents that are tokenised once, into a cache.

    Batches are dicts of tensors: ``input_ids`` (b, m) int64, ``attention_mask`` (b, m) int64 (1 where there is a token,
    0 where there is padding), m at most ``max_seq_len``; and ``labels``.

    Subclasses implement :meth:`source_key` (which documents), :meth:`cache_key`, :meth:`prepare_split_files` and
    :meth:`open_dataset` (what becomes of them).

    Args:
        tokenizer: ``deepmind/language-perceiver`` (UTF-8 bytes, no download), or any tokenizer: a hub id or a folder.
            For masked text, it needs a mask token. In Python, a tokenizer object serves too.
        max_seq_len: Tokens per example, at most.
        truncation_side: Where a document of more than max_seq_len tokens is cut off, with labels and in prediction:
            right (its beginning is used) or left (its end is).
        random_train_shift: Begin each training example at a random position, anew in each epoch; with labels, each that
            is longer than max_seq_len.
        random_train_truncation: Shorten training examples to a random length.
        random_min_seq_len: The shortest length that truncation draws. For masked text also the fewest tokens that the
            last chunk of the text must have to be used.
        padding_side: Where batches are padded; null: where the tokenizer does.
        add_special_tokens: Enclose each document in the tokenizer's special tokens, such as [CLS] and [SEP].
        add_eos_token: End each document with the tokenizer's EOS token (SEP, if there is none).
        preproc_workers: Processes that tokenise; null: one for small data, otherwise up to 8, depending on
            the cores.
        preproc_batch_size: Documents that are tokenised together.
        cache_dir: Folder for tokenised data; null: $PERCEIVER_CACHE or ~/.cache/perceiver.
    """

    cache_name = "text"
    """Prefix of the folder in the cache."""

    missing_split: ClassVar[dict[str, str]] = {
        "train": "there is no text for training",
        "validation": "there is too little text to set some aside for validation",
        "test": "there is no test data",
    }
    """What to say where there is nothing in a split."""

    target: str
    text_column: str = "text"

    def __init__(
        self,
        tokenizer: str = PERCEIVER_TOKENIZER,
        max_seq_len: int = 256,
        truncation_side: Literal["left", "right"] = "right",
        random_train_shift: bool = False,
        random_train_truncation: bool = False,
        random_min_seq_len: int = 16,
        padding_side: Literal["left", "right"] | None = None,
        add_special_tokens: bool = False,
        add_eos_token: bool = False,
        preproc_workers: int | None = None,
        preproc_batch_size: int = 1000,
        cache_dir: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_positive(
            max_seq_len=max_seq_len,
            random_min_seq_len=random_min_seq_len,
            preproc_workers=preproc_workers,
            preproc_batch_size=preproc_batch_size,
        )
        if random_train_truncation and random_min_seq_len > max_seq_len:
            raise UserError(f"random_min_seq_len={random_min_seq_len} must be at most max_seq_len={max_seq_len}")
        if padding_side not in (None, "left", "right"):
            raise UserError(f"padding_side={padding_side!r} must be 'left', 'right' or null")
        if truncation_side not in ("left", "right"):
            raise UserError(f"truncation_side={truncation_side!r} must be 'left' or 'right'")
        self.max_seq_len = max_seq_len
        self.truncation_side = truncation_side
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
        self._is_prepared = False

    # what subclasses implement

    @abstractmethod
    def source_key(self) -> dict[str, Any]:
        """What determines the documents, in plain data: a change of it means other data in the cache."""

    @abstractmethod
    def cache_key(self) -> dict[str, Any]:
        """What determines the tokenised data besides documents and tokenizer, in plain data."""

    @abstractmethod
    def prepare_split_files(self) -> None:
        """Tokenise all splits into :attr:`folder`, unless they are there and intact."""

    @abstractmethod
    def open_dataset(self, split: str) -> BatchDataset:
        """Create the data set of a split from the files in :attr:`folder`."""

    def check_target(self, target: str) -> None:
        """Raise UserError unless the data has something to predict for a target."""
        if target not in self.targets:
            served = " or ".join(self.targets)
            raise UserError(f"target={target}: {type(self).__name__} has no such labels; it serves target={served}")

    @property
    def known_facts(self) -> dict[str, Any]:
        """Facts about the labels for use without training data."""
        return {name: list(value) for name, value in self.known.items() if name.startswith(("label_", "target_"))}

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
            "truncation_side": self.truncation_side,
            "add_special_tokens": self.add_special_tokens,
            "add_eos_token": self.add_eos_token,
            "target": self.target,
        }

    # preparation

    @cached_property
    def encoder(self) -> DocumentEncoder:
        """Makes tokens of documents."""
        return DocumentEncoder(self.tokenizer, False, self.add_special_tokens, self.add_eos_token)

    @cached_property
    def folder(self) -> Path:
        """Where the tokenised data is kept, whatever the options for examples, which are made on use."""
        key = {"source": self.source_key(), "tokenizer": serialize_tokenizer(self.tokenizer), **self.cache_key()}
        return cache_folder(cache_root(self.cache_dir), self.cache_name, key)

    def prepare_data(self) -> None:
        """Tokenise, unless the cache has it intact. Lightning calls this in one process per machine."""
        if not self._is_prepared:
            self.prepare_split_files()
            self._is_prepared = True

    def setup(self, stage: str | None = None) -> None:
        """Map the tokenised data. Prepares it first where that was not done."""
        if not self.folder.exists():
            self.prepare_data()
        for split in ("train", "validation", "test"):
            dataset = self.open_dataset(split)
            if len(dataset):
                self.split_datasets[split] = dataset

    @cached_property
    def collator(self) -> Collator:
        """Pads examples to the longest of a batch."""
        return Collator(int(self.tokenizer.pad_token_id or 0), self.padding_side)


class TextDataModule(DocumentDataModule):
    """Text for masked language modelling: hidden tokens are to be predicted.

    Documents are put in a row and cut into chunks of equal length. Some of their tokens are then chosen, of which 80 %
    are masked, 10 % replaced by a random one, 10 % left as they are. Masks for validation and test are the same each
    time, so that their losses can be compared.

    Labels of batches are (b, m) int64, -100 where nothing is to be predicted.

    Subclasses implement :meth:`source_key` and :meth:`load_documents`.

    Args:
        target: masked; labels have data modules of their own.
        mask_prob: Part of the tokens (or words) that are to be predicted.
        mask_words: Mask whole words (true) or single tokens (false). With bytes, a word is what stands
            between white space.
        static_masking: Mask an example in the same way in each epoch, instead of anew.
    """

    targets: ClassVar[tuple[str, ...]] = ("masked",)
    unused_options: ClassVar[Mapping[str, Any]] = {
        "label_column": "label",
        "tokens_column": "tokens",
        "label_names": None,
    }

    def __init__(
        self,
        target: Literal["masked"] = "masked",
        mask_prob: float = 0.15,
        mask_words: bool = True,
        static_masking: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.check_target(target)
        if not 0 < mask_prob <= 1:
            raise UserError(f"mask_prob={mask_prob} must be more than 0 and at most 1")
        self.target = target
        self.mask_prob = mask_prob
        self.mask_words = mask_words
        self.static_masking = static_masking
        self.notes: list[str] = []
        """Lines to report of the documents; :meth:`load_documents` adds them."""

    @abstractmethod
    def load_documents(self, work: Path) -> dict[str, datasets.Dataset]:
        """The documents of the splits ``train``, ``validation`` and, if there is one, ``test``.

        Args:
            work: A folder for temporary files, removed afterwards.

        Returns:
            For each split a data set with the column ``text`` and, if documents come in pieces, ``first`` and
            ``last``.
        """

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

    def cache_key(self) -> dict[str, Any]:
        return {
            "mask_words": self.mask_words,
            "add_special_tokens": self.add_special_tokens,
            "add_eos_token": self.add_eos_token,
        }

    def prepare_split_files(self) -> None:
        mask_token_id(self.tokenizer)  # a tokenizer that cannot mask is refused before the work rather than after it
        workers, batch_size = self.preproc_workers, self.preproc_batch_size
        prepare(self.folder, self.load_documents, self.encoder, workers, batch_size, lambda: self.notes)

    def open_dataset(self, split: str) -> MaskedChunks:
        return self.chunks(open_split(self.folder, split), train=split == "train")

    def chunks(self, tokens: Tokens, train: bool) -> MaskedChunks:
        """The examples of a split."""
        return MaskedChunks(
            tokens,
            self.masker,
            self.collator,
            self.max_seq_len,
            self.random_min_seq_len,
            self.seed,
            static=self.static_masking or not train,
            shift=self.random_train_shift and train,
            truncate=self.random_train_truncation and train,
        )
