"""Training of tokenizers on the texts of a data module."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from pytorch_lightning.utilities import rank_zero_info
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from perceiver_plugins.sdk.data.files import Piece
from perceiver_plugins.sdk.data.prepared_folder import make_folder
from perceiver_plugins.sdk.errors import DataError
from perceiver_plugins.text.tokenizers import deserialize_tokenizer, serialize_tokenizer
from perceiver_registry.errors import UserError

PREFIX = "train:"
"""Prefix of the option ``tokenizer`` that asks for a trained tokenizer."""

AUTO = "auto"
"""Kind that is chosen by the texts."""

NAMES = "train:auto, train:bpe, train:unigram or train:word"
"""Values of the option ``tokenizer`` that ask for a trained tokenizer, for messages."""

VOCAB_SIZES = {"bpe": 8000, "unigram": 8000, "word": 20_000}
"""Default size of a trained vocabulary, by kind; arbitrary."""

MAX_CHARACTERS = 10**8
"""Characters of text to train on, at most; arbitrary. Training takes about a minute per 100 million characters."""

KINDS_OF_MODELS = {"BPE": "bpe", "Unigram": "unigram", "WordLevel": "word"}
"""Kinds by the type of the model in the file of a tokenizer."""

FILE = "tokenizer.json"
"""File of a prepared folder with the trained tokenizer."""

VERSION = 1
"""Version of the training, part of the cache key: increase it when the tokenizers change."""

SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
    "bos_token": "[BOS]",
    "eos_token": "[EOS]",
}
"""Special tokens of all trained tokenizers, which have the ids 0, 1, ... in this order."""

MIN_FREQUENCY = 2
"""Fewest occurrences of a word or merge that becomes a token. Rarer words are [UNK], which is learned from them."""

PIECES = Regex(
    r" ?[\p{L}\p{M}\x{200C}\x{200D}]+| ?\p{N}+| ?[^\s\p{L}\p{M}\p{N}\x{200C}\x{200D}]+|\s+(?!\S)|\s+",
)
"""Runs of letters, of digits, of punctuation, each with the space before it, and of white space. As in GPT-2, but with
combining marks and joiners as letters, which many scripts need, and without the English contractions."""

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
WORDS = Regex(rf"[{_UNSPACED}]\p{{M}}*|(?:(?![{_UNSPACED}])[\w\x{{200C}}\x{{200D}}])+|[^\w\s\x{{200C}}\x{{200D}}]")
"""Words, and single characters of punctuation and of scripts without spaces between words."""

MAX_UNREPEATED = 0.1
"""Largest share of unrepeated words with which ``train:auto`` trains a tokenizer of words. The share is at most 0.05 in
six English data sets of 4,480 to 25,000 texts, where words are better, and 0.2 in texts in 69 languages, where pieces
of words are (``python -m benchmarks own-data``)."""

SAMPLE_CHARACTERS = 10**6
"""Characters of text on which the share of unrepeated words is measured, about as many as in these data sets."""

_PENALTY = 1e-4
"""Difference between the scores that Hugging Face's trainer gives, in random order, to the characters it has to add."""


@dataclass(frozen=True)
class TokenizerTraining:
    """Tokenizer that is trained on the training texts of a data module.

    - ``bpe``: byte-level byte-pair encoding (Sennrich et al., 2016). Lossless: any text can be encoded and decoded.
    - ``unigram``: unigram language model (Kudo, 2018). Characters that are not in the training texts become [UNK].
    - ``word``: the most frequent lower-cased words (normalised to NFC), and punctuation. Other words become [UNK].
    - ``auto``: ``word``, or byte-level byte pairs of lower-cased text if more than a tenth of the words occur only
      once, as in short texts in many languages.

    The same texts give the same tokenizer, on any number of cores.

    Args:
        kind: auto, bpe, unigram or word.
        vocab_size: Size of the vocabulary, at most, special tokens included; None: that of ``VOCAB_SIZES``.
    """

    kind: str
    vocab_size: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in (AUTO, *_BUILDERS):
            raise UserError(f"tokenizer: must be {NAMES}, got {self.name!r}")
        has_bytes = self.kind in (AUTO, "bpe")
        smallest = len(SPECIAL_TOKENS) + (256 if has_bytes else 1)
        if self.vocab_size is not None and self.vocab_size < smallest:
            bytes_ = "256 bytes and " if has_bytes else ""
            raise UserError(
                f"vocab_size={self.vocab_size}: must be at least {smallest} with tokenizer={self.name} "
                f"({bytes_}{len(SPECIAL_TOKENS)} special tokens are part of it)"
            )

    @classmethod
    def from_options(cls, tokenizer: Any, vocab_size: int | None) -> TokenizerTraining | None:
        """Create the training that a data module's options ask for, or return None if they name a tokenizer.

        Raises:
            UserError: If the kind is unknown, or the size is too small or without effect.
        """
        if isinstance(tokenizer, str) and tokenizer.startswith(PREFIX):
            return cls(tokenizer.removeprefix(PREFIX), vocab_size)
        if vocab_size is not None:
            raise UserError(
                f"vocab_size={vocab_size}: only a tokenizer that is trained takes a size (pass tokenizer={NAMES}, or "
                "leave it out)"
            )
        return None

    @property
    def name(self) -> str:
        """Value of the option ``tokenizer``."""
        return PREFIX + self.kind

    def key(self) -> dict[str, Any]:
        """Return plain data that identifies the training, as part of the key of a cache."""
        return {"kind": self.kind, "vocab_size": self.vocab_size, "version": VERSION}

    def restore(self, stored: Mapping[str, Any]) -> PreTrainedTokenizerBase:
        """Restore the tokenizer of a trained model, which replaces the training.

        Args:
            stored: Output of :func:`~perceiver_plugins.text.tokenizers.serialize_tokenizer`.

        Raises:
            UserError: If it is another tokenizer than the options ask for.
        """
        tokenizer = deserialize_tokenizer(dict(stored))
        if stored["name"] != self.name:
            raise UserError(
                f"tokenizer: {self.name} cannot be trained, as the model has the tokenizer {stored['name']!r} "
                "(leave it out)"
            )
        if self.vocab_size is not None and len(tokenizer) > self.vocab_size:
            raise UserError(
                f"vocab_size={self.vocab_size}: smaller than the model's vocabulary of {len(tokenizer):,} tokens "
                "(leave it out)"
            )
        return tokenizer

    def train_in(self, folder: Path, load: Callable[[Path], Iterable[Piece]]) -> PreTrainedTokenizerBase:
        """Load the tokenizer from a prepared folder, after training it if the folder does not exist or is damaged.

        Either way, its kind and size are reported.

        Args:
            folder: The folder.
            load: Loads the training documents, or their pieces, given a folder for temporary files.

        Raises:
            DataError, UserError: As :meth:`train`.
        """

        is_cached = True

        def make(work: Path, result: Path) -> list[str]:
            nonlocal is_cached
            is_cached = False
            state = serialize_tokenizer(self.train(load(work)))
            (result / FILE).write_text(json.dumps(state, ensure_ascii=False, sort_keys=True), encoding="utf-8")
            return []

        make_folder(folder, make)
        state = json.loads((folder / FILE).read_text(encoding="utf-8"))
        tokenizer = deserialize_tokenizer(state)
        if is_cached:
            kind = KINDS_OF_MODELS[json.loads(state["json"])["model"]["type"]]
            rank_zero_info(
                f"tokenizer: {kind} with {len(tokenizer):,} tokens, trained on the same texts before (cached)"
            )
        return tokenizer

    def train(self, documents: Iterable[Piece]) -> PreTrainedTokenizerBase:
        """Train the tokenizer, and report its size.

        Args:
            documents: Documents of the training split, or their pieces.

        Raises:
            DataError: If the texts are empty, or no word occurs twice.
            UserError: If the vocabulary is too small for the characters of the texts.
        """
        count = 0

        def texts() -> Iterator[str]:
            nonlocal count
            for piece in documents:
                count += piece.first
                yield piece.text

        kind, read = (self.kind, texts()) if self.kind != AUTO else choose_kind(texts())
        backend = _BUILDERS[kind](self, read)
        if backend.get_vocab_size() == len(SPECIAL_TOKENS):
            twice = f"no word that occurs {MIN_FREQUENCY} times in " if count else "no text in "
            raise DataError(f"tokenizer: {self.name} finds {twice}the training data (pass another tokenizer)")
        special = list(SPECIAL_TOKENS.values())
        affixes = [(token, special.index(token)) for token in ("[CLS]", "[SEP]")]
        backend.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=affixes)
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=backend, clean_up_tokenization_spaces=False, **SPECIAL_TOKENS
        )
        tokenizer.name_or_path = self.name
        rank_zero_info(f"tokenizer: trained {kind} with {len(tokenizer):,} tokens on {count:,} texts")
        return tokenizer

    # kinds

    def _train_bpe(self, texts: Iterator[str]) -> Tokenizer:
        tokenizer = Tokenizer(models.BPE())
        if self.kind == AUTO:
            tokenizer.normalizer = normalizers.Lowercase()
        bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(PIECES, "isolated"), bytes_])
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(initial_alphabet=alphabet, min_frequency=MIN_FREQUENCY, **self._options("bpe"))
        tokenizer.train_from_iterator(texts, trainer)
        return tokenizer

    def _train_unigram(self, texts: Iterator[str]) -> Tokenizer:
        tokenizer = Tokenizer(models.Unigram())
        spaces = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(PIECES, "isolated"), spaces])
        tokenizer.decoder = decoders.Metaspace(prepend_scheme="never")
        trainer = trainers.UnigramTrainer(unk_token=SPECIAL_TOKENS["unk_token"], **self._options("unigram"))
        try:
            tokenizer.train_from_iterator(texts, trainer)
        except Exception as error:  # tokenizers raises no other class
            if "not large enough" not in str(error):
                raise
            raise UserError(
                f"vocab_size={self.vocab_size}: too small for the different characters in the training texts (pass a "
                "larger one, or tokenizer=train:bpe)"
            ) from error
        vocabulary = json.loads(tokenizer.to_str())["model"]["vocab"]
        unknown = list(SPECIAL_TOKENS).index("unk_token")
        tokenizer.model = models.Unigram(canonical_unigram(vocabulary), unk_id=unknown, byte_fallback=False)
        return tokenizer

    def _train_words(self, texts: Iterator[str]) -> Tokenizer:
        tokenizer = Tokenizer(models.WordLevel(unk_token=SPECIAL_TOKENS["unk_token"]))
        tokenizer.normalizer, tokenizer.pre_tokenizer = _word_rules()
        trainer = trainers.WordLevelTrainer(min_frequency=MIN_FREQUENCY, **self._options("word"))
        tokenizer.train_from_iterator(texts, trainer)
        return tokenizer

    def _options(self, kind: str) -> dict[str, Any]:
        """Return the arguments that all trainers share."""
        with_spaces = kind != "word"  # tokens include the space before a word, so that a mask includes it as well
        mask = SPECIAL_TOKENS["mask_token"]
        special = [
            AddedToken(token, special=True, normalized=False, lstrip=with_spaces and token == mask)
            for token in SPECIAL_TOKENS.values()
        ]
        return {"vocab_size": self.vocab_size or VOCAB_SIZES[kind], "special_tokens": special, "show_progress": False}


_BUILDERS = {
    "bpe": TokenizerTraining._train_bpe,
    "unigram": TokenizerTraining._train_unigram,
    "word": TokenizerTraining._train_words,
}


def choose_kind(texts: Iterator[str]) -> tuple[str, Iterator[str]]:
    """Choose "word", or "bpe" if words rarely repeat, and return the texts again.

    Args:
        texts: Texts to train on.
    """
    sample, length = [], 0
    for text in texts:
        sample.append(text)
        length += len(text)
        if length >= SAMPLE_CHARACTERS:
            break
    kind = "word" if unrepeated_share(sample) <= MAX_UNREPEATED else "bpe"
    return kind, itertools.chain(sample, texts)


def unrepeated_share(texts: Iterable[str]) -> float:
    """Return the share of the words of texts that occur only once; 1 if there are no words."""
    normalizer, pre_tokenizer = _word_rules()
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(word for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(text)))
    return sum(count for count in counts.values() if count < MIN_FREQUENCY) / counts.total() if counts else 1.0


def _word_rules() -> tuple[normalizers.Normalizer, pre_tokenizers.PreTokenizer]:
    """Return the normalisation and the splitting of texts into words."""
    normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    return normalizer, pre_tokenizers.Split(WORDS, "removed", invert=True)


def sample_pieces(documents: datasets.Dataset) -> Iterator[Piece]:
    """Yield the documents or pieces of a data set, or evenly spaced ones if there are more than MAX_CHARACTERS.

    Args:
        documents: Column ``text`` and, if documents are split into pieces, ``first``.
    """
    stride = -(-documents.data.nbytes // MAX_CHARACTERS)
    selected = documents.select(range(0, len(documents), stride)) if stride > 1 else documents
    for batch in selected.iter(batch_size=1000):
        firsts = batch.get("first") or [True] * len(batch["text"])
        yield from (Piece(text, first) for text, first in zip(batch["text"], firsts, strict=True) if text)


def canonical_unigram(vocabulary: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Remove what varies between trainings of a unigram vocabulary on the same texts.

    Hugging Face's trainer visits words in random order. Scores differ by rounding errors, and characters that the model
    lacked have different scores close to the lowest one.

    Args:
        vocabulary: Tokens and scores, special tokens first.

    Returns:
        The same tokens, with rounded scores, the highest first.
    """
    special, ordinary = vocabulary[: len(SPECIAL_TOKENS)], vocabulary[len(SPECIAL_TOKENS) :]
    lowest = min((score for _, score in ordinary), default=0.0)
    limit = lowest + _PENALTY * sum(len(token) == 1 for token, _ in ordinary)
    levelled = ((token, lowest if len(token) == 1 and score < limit else score) for token, score in ordinary)
    rounded = ((token, round(score, 6)) for token, score in levelled)
    return [(token, score) for token, score in special] + sorted(rounded, key=lambda pair: (-pair[1], pair[0]))
