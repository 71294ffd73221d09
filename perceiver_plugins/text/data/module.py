"""Base data modules for text: documents, and text for masked language modelling."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import datasets
import numpy as np
from pytorch_lightning.utilities import rank_zero_warn
from transformers import PreTrainedTokenizerBase

from perceiver_plugins.sdk.data.files import Piece
from perceiver_plugins.sdk.data.loading import BatchDataset
from perceiver_plugins.sdk.data.module import PerceiverDataModule, check_positive
from perceiver_plugins.sdk.data.prepared_folder import cache_root
from perceiver_plugins.sdk.errors import DataError
from perceiver_plugins.text.data.chunks import Collator, MaskedChunks
from perceiver_plugins.text.data.encoding import DocumentEncoder
from perceiver_plugins.text.data.masking import Masker
from perceiver_plugins.text.data.prepared import (
    Tokens,
    cache_folder,
    open_arrays,
    prepare,
    quiet_datasets,
)
from perceiver_plugins.text.data.reports import SPLITS_OF_STAGE, describe_unknown_tokens
from perceiver_plugins.text.data.targets import TargetRedirect
from perceiver_plugins.text.tokenizer_training import TokenizerTraining, sample_pieces
from perceiver_plugins.text.tokenizers import (
    PERCEIVER_TOKENIZER,
    deserialize_tokenizer,
    load_tokenizer,
    mask_token_id,
    serialize_tokenizer,
)
from perceiver_registry.errors import UserError


class DocumentDataModule(TargetRedirect, PerceiverDataModule):
    """Base class of data modules whose documents are tokenized once, into a cache.

    Batches are dicts of

    - ``input_ids`` (b, m), int64, m at most ``max_seq_len``;
    - ``attention_mask`` (b, m), int64, 1 at tokens and 0 at padding;
    - ``labels``, whose shape depends on the target.

    Subclasses implement :meth:`source_key`, :meth:`cache_key`, :meth:`prepare_split_files`, :meth:`open_dataset` and
    :meth:`training_documents`.

    Args:
        tokenizer: ``bytes`` or ``deepmind/language-perceiver`` (UTF-8 bytes, no download); ``train:bpe``,
            ``train:unigram``, ``train:word`` or ``train:auto`` (words if they repeat, else byte pairs), which train a
            tokenizer on the training texts; or any tokenizer: a hub id or a folder. Masked text needs a mask token. In
            Python, a tokenizer object is accepted as well.
        vocab_size: Size of the vocabulary of a tokenizer that is trained, at most, special tokens included; null: 8000,
            or 20,000 words.
        max_seq_len: Tokens per example, at most.
        truncation_side: Side on which a document of more than max_seq_len tokens is cut, with labels and in prediction:
            right (use its beginning) or left (use its end).
        random_train_shift: Start each training example (with labels: each longer than max_seq_len) at a random
            position in each epoch.
        random_train_truncation: Shorten training examples to a random length in each epoch.
        random_min_seq_len: Shortest length of random truncation. With masked text also the fewest tokens of the last
            chunk, which is dropped otherwise.
        padding_side: Side on which batches are padded; null: that of the tokenizer.
        add_special_tokens: Enclose each document in the tokenizer's special tokens, such as [CLS] and [SEP].
        add_eos_token: End each document with the tokenizer's EOS token (SEP, if the tokenizer has no EOS).
        preproc_workers: Processes for tokenization; null: one for small data, otherwise up to 8, depending on
            the cores.
        preproc_batch_size: Documents per tokenization batch.
        cache_dir: Folder for tokenized data; null: $PERCEIVER_CACHE or ~/.cache/perceiver.
    """

    cache_name = "text"
    """Prefix of the folder in the cache."""

    missing_split: ClassVar[dict[str, str]] = {
        "train": "no text for training",
        "validation": "too little text to hold some out for validation",
        "test": "no test data",
    }
    """Error message for each split that is missing or empty."""

    target: str
    text_column: str = "text"
    delimiter: str | None = None

    def __init__(
        self,
        tokenizer: str = PERCEIVER_TOKENIZER,
        vocab_size: int | None = None,
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
        self._training = TokenizerTraining.from_options(tokenizer, vocab_size)
        self._padding_side = padding_side
        self._is_prepared = False
        self._reported: set[str] = set()

    # for subclasses to implement

    @abstractmethod
    def source_key(self) -> dict[str, Any]:
        """Return plain data that identifies the documents, as part of the key of the cache."""

    @abstractmethod
    def cache_key(self) -> dict[str, Any]:
        """Return plain data of the options that affect the tokenized data, as part of the key of the cache."""

    @abstractmethod
    def prepare_split_files(self) -> None:
        """Tokenize all splits into :attr:`folder`, unless it exists and is intact."""

    @abstractmethod
    def open_dataset(self, split: str) -> BatchDataset:
        """Create the dataset of a split from the files in :attr:`folder`."""

    def reports(self, splits: Mapping[str, Any]) -> Iterable[str]:
        """Return lines about texts that a model reads in part, or whose tokens are unknown; "" is not reported.

        Args:
            splits: datasets of :meth:`open_dataset` by split.
        """
        return ()

    def training_documents(self, work: Path) -> Iterable[Piece]:
        """Return the documents of the training split, or their pieces, to train a tokenizer on.

        Args:
            work: Folder for temporary files, which is removed afterwards.
        """
        raise UserError(f"tokenizer: {type(self).__name__} cannot train one, got {self._tokenizer!r} (name another)")

    def check_target(self, target: str) -> None:
        """Raise UserError unless the data has labels for a target."""
        if target not in self.targets:
            supported = " or ".join(self.targets)
            raise UserError(f"target={target}: {type(self).__name__} has no such labels (it has target={supported})")

    @property
    def known_facts(self) -> dict[str, Any]:
        """Facts about the labels of the model, for use without training data."""
        wanted = ("label_", "target_", "multi_label")
        return {
            name: list(value) if isinstance(value, list | tuple) else value
            for name, value in self.known.items()
            if name.startswith(wanted)
        }

    # properties for models and tasks

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, loaded or trained at first use.

        A tokenizer that :attr:`inherited` has, that of a model, is neither loaded nor trained again.
        """
        if isinstance(self._tokenizer, PreTrainedTokenizerBase):
            return self._tokenizer
        stored = self.inherited.get("tokenizer")
        if self._training is None:
            if stored and stored["name"] == self._tokenizer:
                return deserialize_tokenizer(dict(stored))
            return load_tokenizer(self._tokenizer)
        if stored:
            return self._training.restore(stored)
        key = {"source": self.source_key(), "training": self._training.key(), **self.cache_key()}
        folder = cache_folder(cache_root(self.cache_dir), "tokenizer", key)
        return self._training.train_in(folder, self.training_documents)

    def _training_sample(self, documents: datasets.Dataset | None) -> Iterable[Piece]:
        if documents is None:
            raise DataError(f"tokenizer: no training data for {self._tokenizer} (name the data to train on)")
        return sample_pieces(documents)

    @property
    def vocab_size(self) -> int:
        """Number of tokens, special ones included."""
        return len(self.tokenizer)

    @property
    def padding_side(self) -> Literal["left", "right"]:
        """Side on which batches are padded."""
        return self._padding_side or ("left" if self.tokenizer.padding_side == "left" else "right")

    def description(self) -> dict[str, Any]:
        """Return what prediction needs to know about the data, as plain data for checkpoints."""
        return {
            "tokenizer": serialize_tokenizer(self.tokenizer),
            "max_seq_len": self.max_seq_len,
            "padding_side": self.padding_side,
            "truncation_side": self.truncation_side,
            "add_special_tokens": self.add_special_tokens,
            "add_eos_token": self.add_eos_token,
            "target": self.target,
            "text_column": self.text_column,
        } | ({"delimiter": self.delimiter} if self.delimiter else {})

    # preparation

    @cached_property
    def encoder(self) -> DocumentEncoder:
        """Encoder of documents."""
        return DocumentEncoder(self.tokenizer, False, self.add_special_tokens, self.add_eos_token)

    @cached_property
    def folder(self) -> Path:
        """Folder of the tokenized data, which does not depend on options that are applied to examples on use."""
        key = {"source": self.source_key(), "tokenizer": serialize_tokenizer(self.tokenizer), **self.cache_key()}
        return cache_folder(cache_root(self.cache_dir), self.cache_name, key)

    def prepare_data(self) -> None:
        """Tokenize, unless the cache is intact. Lightning calls this in one process per machine."""
        if not self._is_prepared:
            self.prepare_split_files()
            self._is_prepared = True

    def setup(self, stage: str | None = None) -> None:
        """Memory-map the tokenized data, after preparing it if necessary, and report on the splits of the stage."""
        if not self.folder.exists():
            self.prepare_data()
        for split in ("train", "validation", "test"):
            dataset = self.open_dataset(split)
            if len(dataset):
                self.split_datasets[split] = dataset
        used = SPLITS_OF_STAGE.get(stage or "", tuple(self.split_datasets))
        unreported = {
            split: dataset
            for split, dataset in self.split_datasets.items()
            if split in used and split not in self._reported
        }
        self._reported.update(unreported)
        for line in filter(None, self.reports(unreported)):
            rank_zero_warn(line)

    @cached_property
    def collator(self) -> Collator:
        """Collate function, which pads to the longest example of a batch."""
        return Collator(int(self.tokenizer.pad_token_id or 0), self.padding_side)


class UnlabelledTextDataModule(DocumentDataModule):
    """Base class of data modules of text without labels, whose documents are concatenated.

    Subclasses implement :meth:`source_key`, :meth:`load_documents` and :meth:`make_dataset`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.notes: list[str] = []
        """Warnings about the documents, one line each; :meth:`load_documents` appends to them."""

    @abstractmethod
    def load_documents(self, work: Path) -> dict[str, datasets.Dataset]:
        """Return the documents of the splits ``train``, ``validation`` and, optionally, ``test``.

        Args:
            work: Folder for temporary files, which is removed afterwards.

        Returns:
            A data set per split, with the column ``text`` and, if documents are split into pieces, ``first`` and
            ``last``.
        """

    def cache_key(self) -> dict[str, Any]:
        return {"target": self.target}

    @abstractmethod
    def make_dataset(self, columns: Mapping[str, np.ndarray], train: bool) -> BatchDataset:
        """Create the dataset of a split.

        Args:
            columns: Columns of the :attr:`encoder`, concatenated; none if the split is missing.
            train: Whether the split is that of training.
        """

    def training_documents(self, work: Path) -> Iterable[Piece]:
        with quiet_datasets():
            return self._training_sample(self.load_documents(work).get("train"))

    def prepare_split_files(self) -> None:
        workers, batch_size = self.preproc_workers, self.preproc_batch_size
        prepare(self.folder, self.load_documents, self.encoder, workers, batch_size, self._distinct_notes)

    def _distinct_notes(self) -> list[str]:
        return list(dict.fromkeys(self.notes))  # the training of a tokenizer loads the documents as well

    def open_dataset(self, split: str) -> BatchDataset:
        return self.make_dataset(open_arrays(self.folder / split), train=split == "train")

    def reports(self, splits: Mapping[str, BatchDataset]) -> Iterable[str]:
        tokens = {split: open_arrays(self.folder / split)["input_ids"] for split in splits}
        return [describe_unknown_tokens(tokens, self.tokenizer)]


class TextDataModule(UnlabelledTextDataModule):
    """Base class of data modules of text for masked language modelling.

    Documents are concatenated and cut into chunks of equal length. Of the tokens chosen for prediction, 80 % are
    masked, 10 % replaced by a random token and 10 % kept. Masks of validation and test data are fixed, so that losses
    can be compared.

    Labels of batches are (b, m) int64, -100 where ignored.

    Subclasses implement :meth:`source_key` and :meth:`load_documents`.

    Args:
        target: Kind of labels: masked. Tasks with other labels use other data modules.
        mask_prob: Fraction of the tokens (or words) to predict.
        mask_words: Mask whole words (true) or single tokens (false). With bytes, words are separated by white space.
        static_masking: Use the same masks in each epoch.
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

    @cached_property
    def encoder(self) -> DocumentEncoder:
        """Encoder of documents."""
        return DocumentEncoder(self.tokenizer, self.mask_words, self.add_special_tokens, self.add_eos_token)

    @cached_property
    def masker(self) -> Masker:
        """Masker of tokens."""
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
        mask_token_id(self.tokenizer)  # refuse a tokenizer without a mask token before tokenizing
        super().prepare_split_files()

    def make_dataset(self, columns: Mapping[str, np.ndarray], train: bool) -> MaskedChunks:
        tokens = Tokens(**columns) if columns else Tokens(np.zeros(0, np.uint16), np.zeros(0, np.uint8))
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
