"""Configurations of the text adapters."""

from __future__ import annotations

from dataclasses import dataclass

from perceiver_core.config import DecoderConfig, EncoderConfig, require, require_positive
from perceiver_core.config import PerceiverConfig as PerceiverConfig  # re-exported by the package


@dataclass
class TextEncoderConfig(EncoderConfig):
    """Configuration of an encoder of token or byte sequences.

    Args:
        vocab_size: size of the vocabulary; 262 for UTF-8 bytes and special tokens (the Perceiver tokenizer).
        max_seq_len: length of the longest sequence, and number of learned positions.
        num_input_channels: channels of the embeddings.
        max_ngram_length: longest n-gram of tokens with a hashed embedding, which is added to that of its last token
            (Joulin et al. 2017, arXiv 1607.01759). 1: none.
        num_ngram_buckets: size of the table of hashed n-grams.
        token_dropout: probability of hiding a token (and its n-grams) in training (word dropout, Iyyer et al. 2015,
            doi 10.3115/v1/P15-1162).
        num_subword_buckets: size of the table of hashed character n-grams of tokens, whose embeddings are added to that
            of the token (Bojanowski et al. 2017, arXiv 1607.04606). 0: none.
    """

    vocab_size: int = 262
    max_seq_len: int = 512
    num_input_channels: int = 256
    max_ngram_length: int = 1
    num_ngram_buckets: int = 2**16
    token_dropout: float = 0.0
    num_subword_buckets: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(
            self, "vocab_size", "max_seq_len", "num_input_channels", "max_ngram_length", "num_ngram_buckets"
        )
        require(
            self.num_subword_buckets == 0 or self.num_subword_buckets > 1,
            self,
            "num_subword_buckets",
            "must be 0 or at least 2",
        )
        require(0.0 <= self.token_dropout < 1.0, self, "token_dropout", "must be at least 0 and less than 1")


@dataclass
class TextDecoderConfig(DecoderConfig):
    """Configuration of a decoder that predicts a token for each position of a sequence.

    Args:
        vocab_size: size of the vocabulary.
        max_seq_len: length of the longest sequence, and number of learned output queries.
        num_output_query_channels: channels of an output query. None: those of the token embedding, whose weight the
            output layer shares (tied weights).
    """

    vocab_size: int = 262
    max_seq_len: int = 512
    num_output_query_channels: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "vocab_size", "max_seq_len", "num_output_query_channels")
