"""The data module that all text data modules share: source, tokeniser, cache, examples and loaders."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import datasets
from transformers import PreTrainedTokenizerBase

from perceiver_plugins.sdk.data.files import Row
from perceiver_plugins.sdk.data.module import PerceiverDataModule, check_positive
from perceiver_plugins.sdk.data.prepared_folder import reuse_folder
from perceiver_plugins.text.data.chunks import Collator, MaskedChunks
from perceiver_plugins.text.data.encoding import DocumentEncoder
from perceiver_plugins.text.data.labelled import (
    FACTS,
    LabelledDocuments,
    open_documents,
    prepare_labelled,
)
from perceiver_plugins.text.data.labels import Labels, Target, make_labels
from perceiver_plugins.text.data.masking import Masker
from perceiver_plugins.text.data.prepared import (
    Tokens,
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
from perceiver_registry.errors import UserError


class NoLabelsError(UserError, AttributeError):
    """The target has no such thing as was asked for. An ``AttributeError`` too, for ``hasattr``."""


class TextDataModule(PerceiverDataModule):
    """Text, for one of several targets: what a model is to predict. Documents are tokenised once, into a cache.

    - ``masked``: hidden tokens, for masked language modelling. Documents are put in a row and cut into chunks of equal
      length. Some of their tokens are then chosen, of which 80 % are masked, 10 % replaced by a random one, 10 % left
      as they are. Masks for validation and test are the same each time, so that their losses can be compared.
    - ``class``: the class of each document.
    - ``number``: one or several numbers for each document.
    - ``token``: a class for each token of a document.

    With the latter three, an example is a document, of which the first ``max_seq_len`` tokens are used, and documents
    without a text are left out.

    Batches are dicts of tensors: ``input_ids`` (b, n) int64, ``attention_mask`` (b, n) int64 (1 where there is a token,
    0 where there is padding), n at most ``max_seq_len``; and ``labels``: (b, n) int64 for masked and token (-100 where
    nothing is to be predicted), (b,) int64 for class, (b, numbers) float64 for number (NaN where one is missing).

    Subclasses say where documents come from: :meth:`source_key`, :meth:`load_documents` for the target ``masked`` and
    :meth:`load_rows` for the others, as far as :attr:`targets` has them.

    Args:
        target: What is to be predicted: masked, class, number or token. Not all data has labels for all of them.
        tokenizer: ``deepmind/language-perceiver`` (UTF-8 bytes, no download), or any tokenizer, for target=masked with
            a mask token: a hub id or a folder. In Python, a tokenizer object serves too.
        max_seq_len: Tokens per example, at most.
        mask_prob: target=masked: part of the tokens (or words) that are to be predicted.
        mask_words: target=masked: mask whole words (true) or single tokens (false). With bytes, a word is what stands
            between white space.
        static_masking: target=masked: mask an example in the same way in each epoch, instead of anew.
        truncation_side: Other targets: where a document of more than max_seq_len tokens is cut off: right (its
            beginning is used) or left (its end is).
        random_train_shift: Begin each training example at a place drawn by chance, anew in each epoch; with targets
            other than masked, each that is longer than max_seq_len.
        random_train_truncation: Shorten training examples to a length drawn by chance.
        random_min_seq_len: The shortest length that truncation draws. With target=masked also the fewest tokens that
            the last chunk of the text must have to be used.
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

    targets: ClassVar[tuple[Target, ...]] = ("masked",)
    """What can be predicted of this data."""

    # where labels are found, for subclasses to set
    text_column: str = "text"
    label_column: str | list[str] = "label"
    tokens_column: str | None = None
    val_fraction: float = 0.05
    _label_names: Sequence[str] | None = None

    def __init__(
        self,
        target: Target = "masked",
        tokenizer: str = PERCEIVER_TOKENIZER,
        max_seq_len: int = 256,
        mask_prob: float = 0.15,
        mask_words: bool = True,
        static_masking: bool = False,
        truncation_side: Literal["left", "right"] = "right",
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
        if target not in self.targets:
            served = " or ".join(self.targets)
            raise UserError(f"target={target}: {type(self).__name__} has no such labels; it serves target={served}")
        if not 0 < mask_prob <= 1:
            raise UserError(f"mask_prob={mask_prob} must be more than 0 and at most 1")
        if random_train_truncation and random_min_seq_len > max_seq_len:
            raise UserError(f"random_min_seq_len={random_min_seq_len} must be at most max_seq_len={max_seq_len}")
        if padding_side not in (None, "left", "right"):
            raise UserError(f"padding_side={padding_side!r} must be 'left', 'right' or null")
        if truncation_side not in ("left", "right"):
            raise UserError(f"truncation_side={truncation_side!r} must be 'left' or 'right'")
        self.target = target
        self.max_seq_len = max_seq_len
        self.mask_prob = mask_prob
        self.mask_words = mask_words
        self.static_masking = static_masking
        self.truncation_side = truncation_side
        self.random_train_shift = random_train_shift
        self.random_train_truncation = random_train_truncation
        self.random_min_seq_len = random_min_seq_len
        self.add_special_tokens = add_special_tokens
        self.add_eos_token = add_eos_token
        self.preproc_workers = preproc_workers
        self.preproc_batch_size = preproc_batch_size
        self.cache_dir = cache_dir
        self.notes: list[str] = []
        """Lines to report of the documents; :meth:`load_documents` adds them."""
        self._tokenizer = tokenizer
        self._padding_side = padding_side
        self._is_prepared = False

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

    def load_rows(self) -> dict[str, Iterable[Row]]:
        """The rows of the splits with their labels, in the columns of :meth:`new_labels`: of ``train`` first, then of
        ``validation`` and ``test``, if there are any.
        """
        raise NotImplementedError(f"{type(self).__name__}.load_rows")

    def given_label_names(self) -> Sequence[str] | None:
        """The names of the classes, where they are not to be taken from the training data."""
        return self._label_names

    @property
    def known_facts(self) -> dict[str, Any]:
        """Facts about the labels for use without training data."""
        return {name: list(value) for name, value in self.known.items() if name.startswith(("label_", "target_"))}

    def new_labels(self, label_names: Sequence[str] | None) -> Labels:
        """What reads the labels, if classes have these names, or (None) those that occur.

        Raises:
            UserError: If columns or names do not go with the target.
        """
        return make_labels(self.target, self.text_column, self.label_column, self.tokens_column, label_names)

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

    @property
    def num_classes(self) -> int:
        """target=class or token: number of classes."""
        return len(self.label_names)

    @property
    def label_names(self) -> list[str]:
        """target=class or token: names of the classes, in the order of their numbers."""
        return list(self._fact("label_names"))

    @property
    def class_counts(self) -> list[int]:
        """target=class or token: documents (or tokens) of each class in the training data."""
        return list(self._fact("class_counts"))

    @property
    def num_targets(self) -> int:
        """target=number: how many numbers are to be predicted."""
        return len(self.target_names)

    @property
    def target_names(self) -> list[str]:
        """target=number: names of the numbers, those of their columns."""
        return list(self._fact("target_names"))

    @property
    def target_mean(self) -> list[float]:
        """target=number: mean of each in the training data."""
        return list(self._fact("target_mean"))

    @property
    def target_std(self) -> list[float]:
        """target=number: standard deviation of each in the training data."""
        return list(self._fact("target_std"))

    def _fact(self, name: str) -> Any:
        if name not in self._facts:
            wanted = "number" if name.startswith("target") else "class, or target=token,"
            raise NoLabelsError(
                f"the data has no {name} with target={self.target}: pass target={wanted} if it has labels"
            )
        return self._facts[name]

    @cached_property
    def _facts(self) -> dict[str, Any]:
        if self.target == "masked":
            return {}
        self.prepare_data()
        facts: dict[str, Any] = json.loads((self.folder / FACTS).read_text(encoding="utf-8"))
        return facts

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
        words = self.mask_words and self.target == "masked"
        return DocumentEncoder(self.tokenizer, words, self.add_special_tokens, self.add_eos_token)

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
        """Where the tokenised data is kept, whatever the options for examples, which are made on use."""
        key: dict[str, Any] = {"source": self.source_key(), "tokenizer": serialize_tokenizer(self.tokenizer)}
        if self.target == "masked":
            key["mask_words"] = self.mask_words
            key["add_special_tokens"] = self.add_special_tokens
            key["add_eos_token"] = self.add_eos_token
        else:
            columns = [self.text_column, self.label_column, self.tokens_column]
            key |= {"target": self.target, "columns": columns, "label_names": self._label_names}
        return cache_folder(cache_root(self.cache_dir), self.cache_name, key)

    def prepare_data(self) -> None:
        """Tokenise, unless the cache has it intact. Lightning calls this in one process per machine."""
        workers, batch_size = self.preproc_workers, self.preproc_batch_size
        if self._is_prepared:
            return
        if self.target == "masked":
            mask_token_id(
                self.tokenizer
            )  # a tokenizer that cannot mask is better refused before the work than after it
            prepare(self.folder, self.load_documents, self.encoder, workers, batch_size, lambda: self.notes)
        elif not reuse_folder(self.folder):
            labels = self.new_labels(self.given_label_names())
            prepare_labelled(
                self.folder,
                self.load_rows,
                labels,
                self.encoder,
                self.val_fraction,
                workers,
                batch_size,
                self.known_facts,
            )
        self._is_prepared = True

    def setup(self, stage: str | None = None) -> None:
        """Map the tokenised data. Prepares it first where that was not done."""
        if not self.folder.exists():
            self.prepare_data()
        for split in ("train", "validation", "test"):
            dataset = self._chunks_of(split) if self.target == "masked" else self._documents_of(split)
            if len(dataset):
                self.split_datasets[split] = dataset

    def _chunks_of(self, split: str) -> MaskedChunks:
        return self.chunks(open_split(self.folder, split), train=split == "train")

    def _documents_of(self, split: str) -> LabelledDocuments:
        prefix, suffix = self.encoder.prefix, self.encoder.suffix
        if len(prefix) + len(suffix) >= self.max_seq_len:
            raise UserError(
                f"max_seq_len={self.max_seq_len}: the {len(prefix) + len(suffix)} special tokens leave no room for text"
            )
        return LabelledDocuments(
            open_documents(self.folder, split),
            self.collator,
            self.max_seq_len,
            prefix,
            suffix,
            self.truncation_side,
            self.random_min_seq_len,
            self.seed,
            shift=self.random_train_shift and split == "train",
            truncate=self.random_train_truncation and split == "train",
        )

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

    @cached_property
    def collator(self) -> Collator:
        """Pads examples to the longest of a batch."""
        return Collator(int(self.tokenizer.pad_token_id or 0), self.padding_side)
