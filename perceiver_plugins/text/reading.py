"""Reader of texts for ``perceiver predict``."""

from __future__ import annotations

import html
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pytorch_lightning.utilities import rank_zero_warn
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from perceiver_core import Batch, InputAdapter
from perceiver_plugins.sdk.data.file_trees import FolderTree, select_files
from perceiver_plugins.sdk.data.files import COMPRESSIONS, TABLES, find_files, is_table, read_documents, text_of
from perceiver_plugins.sdk.data.missing_files import missing, shorten_path
from perceiver_plugins.sdk.data.paths import as_path, is_file, is_folder, is_pattern
from perceiver_plugins.sdk.data.table_rows import check_delimiter
from perceiver_plugins.sdk.errors import DataError
from perceiver_plugins.sdk.prediction.reader import Reader
from perceiver_plugins.sdk.prediction.table_inputs import TableRow, kept_columns, row_in_memory, table_inputs
from perceiver_plugins.text.data.chunks import Collator
from perceiver_plugins.text.data.encoding import DocumentEncoder
from perceiver_plugins.text.tokenizers import (
    MAX_UNKNOWN,
    deserialize_tokenizer,
    serialize_tokenizer,
    unknown_tokens,
)
from perceiver_registry import UserError
from perceiver_registry.escaping import escape_controls

TEXT_FILES = tuple(f".txt{compression}" for compression in ("", *COMPRESSIONS))

TABLE_FILES = tuple(f"{suffix}{compression}" for suffix in TABLES for compression in ("", *COMPRESSIONS))

MAX_SHOWN = 60
"""Largest number of characters of a text in a message or title; arbitrary."""

CHARACTERS_PER_TOKEN = 16
"""Characters to tokenize first, per token of the model's input. Arbitrary: about four times the length of a subword."""

MAX_CHARACTERS_PER_TOKEN = 1024
"""Largest number of characters to tokenize per token of the model's input, to bound memory for text without spaces."""

MIN_CHARACTERS = 2**16
"""Lower limit of the number of characters to keep of a long text; arbitrary."""

MARGIN = 16
"""Extra tokens to tokenize, because tokens near a cut may differ from those of the whole text; arbitrary."""

MAX_UNKNOWN_TEXTS = 5
"""Largest number of inputs whose share of unknown tokens is reported; arbitrary."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Attention: {title}</title>
<style>
body {{ font: 16px/1.8 sans-serif; color: #111; background: #fff; max-width: 60em; margin: 2em auto; padding: 0 1em }}
p {{ font-family: monospace; white-space: pre-wrap; overflow-wrap: anywhere }}
span.special {{ color: #777; font-size: 75% }}
</style>
</head>
<body>
<h1>{title}</h1>
{layers}
</body>
</html>
"""

LAYER = """<section>
<h2>Cross-attention {number}</h2>
<div>Strongest colour: {strongest:.2%} of the attention.</div>
<p dir="auto">{spans}</p>
</section>"""


class TextExample(NamedTuple):
    """Tokenized text.

    Attributes:
        input_ids: (m,) tokens, including special tokens around the text.
        spans: (m, 2) start and end of each token's characters in the text; -1 for special tokens.
        text: the text.
    """

    input_ids: np.ndarray
    spans: np.ndarray
    text: str


class Excerpt(NamedTuple):
    """Part of a text that is kept for the model.

    Attributes:
        text: the text or, if it is far longer than the model's input, its beginning or end.
        is_whole: whether ``text`` is the whole text.
    """

    text: str
    is_whole: bool


class TextReader(Reader):
    """Reader of texts and text files, with the tokenizer that the model was trained with.

    The name of a file is read as the file's text, the name of a table as the texts of its rows, and the name of a
    folder as the texts of its .txt files; any other input is itself a text. Rows are named ``reviews.csv:1`` and so on;
    their texts are in the text column of ``data``, by default that of the training data. A text that is longer than the
    model's input is cut as in training, with a single warning. The first texts that consist mostly of unknown tokens
    are reported. Only the part of a text that may be needed is kept in memory.

    Args:
        data: description of the training data from the checkpoint: ``description()`` of the data module.
        input_adapter: the model's input adapter.

    Raises:
        UserError: if the model was not trained on texts.
    """

    long_inputs = True

    def __init__(self, data: Mapping[str, Any], input_adapter: InputAdapter) -> None:
        super().__init__(data, input_adapter)
        if "tokenizer" not in data:
            raise UserError("checkpoint: its data has no tokenizer (the model was not trained on texts)")
        self.tokenizer = deserialize_tokenizer(data["tokenizer"])
        self.add_special_tokens = bool(data.get("add_special_tokens", False))
        self.encoder = DocumentEncoder(
            self.tokenizer, False, self.add_special_tokens, bool(data.get("add_eos_token", False))
        )
        self.max_seq_len = min(data.get("max_seq_len") or np.inf, getattr(input_adapter, "max_seq_len", None) or np.inf)
        self.padding_side: Literal["left", "right"] = data.get("padding_side", "right")
        self.truncation_side = data.get("truncation_side", "right")
        self.text_column = data.get("text_column", "text")
        self.delimiter = check_delimiter(data.get("delimiter"))
        self._collator = Collator(int(self.tokenizer.pad_token_id or 0), self.padding_side)
        self._max_characters = max(MIN_CHARACTERS, MAX_CHARACTERS_PER_TOKEN * self.max_seq_len)
        self._has_warned = False
        self._num_unknown_texts = 0

    @classmethod
    def example(cls, input_adapter: InputAdapter, folder: Path) -> tuple[Reader, list[str]]:
        vocabulary = ["[PAD]", "[UNK]", "[MASK]", "a", "small", "text"]  # few, to fit into any vocabulary
        words = Tokenizer(WordLevel({word: number for number, word in enumerate(vocabulary)}, unk_token="[UNK]"))
        words.pre_tokenizer = Whitespace()
        special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"}
        tokenizer = serialize_tokenizer(PreTrainedTokenizerFast(tokenizer_object=words, **special))
        return cls({"tokenizer": tokenizer}, input_adapter), ["a [MASK] text", "a small small [MASK]"]

    def expand(self, inputs: Sequence[str]) -> list[str]:
        """Expand folders and patterns to files, and tables to rows; keep texts and names of other files.

        Raises:
            UserError: if a pattern or folder has no text file.
        """
        return list(self.sources(inputs))

    def sources(self, inputs: Iterable[str]) -> Iterator[str]:
        names: Iterable[str] = (name for each in inputs for name in self._expand(each))
        if isinstance(inputs, Sequence):
            names = list(names)
            if not any(map(_is_table_file, names)):
                return iter(names)  # of known length, for the progress bar
        return (source for name in names for source in self._rows(name))

    def _rows(self, name: str) -> Iterator[str]:
        """Yield the rows of a table; any other input as it is."""
        if _is_table_file(name):
            return table_inputs(Path(name), self._required_columns() | kept_columns(self.data), self.delimiter)
        return iter([name])

    def _required_columns(self) -> dict[str, str]:
        return {self.text_column: "text_column"}

    def source_of(self, value: Any, name: str) -> TableRow:
        """Convert a row in memory, a dict with the text column, to a source."""
        return row_in_memory(value, name, self._required_columns())

    def _expand(self, name: str) -> list[str]:
        path = as_path(name)
        if is_folder(name):
            files = select_files(FolderTree(path), TEXT_FILES, "texts")
            if not files:
                raise UserError(f"{path}: no .txt files in the folder")
            return [str(path / file) for file in files]
        if name.lower().endswith(TEXT_FILES + TABLE_FILES) and is_pattern(name):
            return [str(file) for file in find_files(name, "input")]
        return [str(path) if is_file(name) or _is_file_name(name) else name]

    def excerpt(self, source: str) -> Excerpt:
        """Read as much of a text as the model may need.

        Raises:
            UserError: if the text is not valid Unicode, or the file cannot be read.
        """
        if isinstance(source, TableRow):
            location, values = source.values_by_column()
            return self._cut(text_of(values, self.text_column, location), True)
        if is_file(source):
            return self._excerpt_of_file(Path(source))
        if _is_file_name(source):
            raise DataError(f"input: {missing(Path(source))}")
        try:
            source.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{source[:MAX_SHOWN]!r}: not UTF-8 text (character {error.start})") from error
        return self._cut(source, True)

    def _excerpt_of_file(self, path: Path) -> Excerpt:
        if is_table(path):
            raise UserError(f"{path}: a table, not a text (its rows are inputs: use expand)")
        pieces: deque[str] = deque()
        length, is_whole = 0, True
        for piece in read_documents(path):
            pieces.append(piece.text)
            length += len(piece.text)
            if length > self._max_characters and self.truncation_side == "right":
                is_whole = False
                break
            while length - len(pieces[0]) > self._max_characters:
                length -= len(pieces.popleft())
                is_whole = False
        return self._cut("".join(pieces), is_whole)

    def _cut(self, text: str, is_whole: bool) -> Excerpt:
        if len(text) <= self._max_characters:
            return Excerpt(text, is_whole)
        return Excerpt(self._side(text, int(self._max_characters)), False)

    def _side(self, text: str, length: int) -> str:
        """Return ``length`` characters of a text, on the side that the model reads."""
        return text[-length:] if self.truncation_side == "left" else text[:length]

    def read(self, source: str) -> TextExample:
        """Tokenize a text or a text file.

        Raises:
            UserError: if the text has no tokens, or the file cannot be read.
        """
        text, is_whole = self.excerpt(source)
        ids, spans, text, is_whole = self._encode(text, is_whole)
        if not len(ids):
            raise UserError(f"{_shown(source)}: no text to read")
        prefix, suffix = self.encoder.prefix, self.encoder.suffix
        excess = int(max(0, len(ids) + len(prefix) + len(suffix) - self.max_seq_len))
        if excess or not is_whole:
            self._warn(source, str(len(ids)) if is_whole else f"more than {self.max_seq_len}")
        if excess:
            kept = slice(excess, None) if self.truncation_side == "left" else slice(len(ids) - excess)
            ids, spans = ids[kept], spans[kept]
        self._report_unknown(source, float(unknown_tokens(self.tokenizer, ids).mean()))
        prefix_spans, suffix_spans = (np.full((len(special), 2), -1) for special in (prefix, suffix))
        return TextExample(
            np.concatenate([np.array(prefix, np.int64), ids, np.array(suffix, np.int64)]),
            np.concatenate([prefix_spans, spans, suffix_spans]),
            text,
        )

    def _encode(self, text: str, is_whole: bool) -> tuple[np.ndarray, np.ndarray, str, bool]:
        """Tokenize as much of a text as fills the model's input.

        Returns:
            Tokens, spans, the part of the text that was tokenized, and whether it is the whole text.
        """
        length = min(len(text), CHARACTERS_PER_TOKEN * self.max_seq_len)
        while True:
            part = self._side(text, int(length)) if length < len(text) else text
            ids, spans = self.encoder.encode_with_spans(part)
            if len(part) == len(text) or len(ids) > self.max_seq_len + MARGIN:
                return ids, spans, part, is_whole and len(part) == len(text)
            length *= 4

    def _warn(self, source: str, length: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            part = "end" if self.truncation_side == "left" else "beginning"
            rank_zero_warn(
                f"{_shown(source)} has {length} tokens: the model reads its {part} only, as its input is "
                f"limited to {self.max_seq_len} tokens (not repeated for other long texts)"
            )

    def _report_unknown(self, source: str, share: float) -> None:
        """Warn about a text that consists mostly of unknown tokens."""
        if share <= MAX_UNKNOWN or self._num_unknown_texts == MAX_UNKNOWN_TEXTS:
            return
        self._num_unknown_texts += 1
        last = "; not repeated for other such texts" if self._num_unknown_texts == MAX_UNKNOWN_TEXTS else ""
        rank_zero_warn(
            f"{_shown(source)}: {share:.0%} of its tokens are unknown to the model's tokenizer (is it in the language "
            f"of the training texts?{last})"
        )

    def collate(self, examples: Sequence[TextExample]) -> Batch:
        """Return ``input_ids`` and ``attention_mask`` (b, m), padded as in training."""
        return dict(self._collator.inputs([example.input_ids for example in examples]))

    def tokens(self, example: TextExample) -> list[str]:
        """Return the characters of each token, with the white space before them; joined, they are the text.

        If a character has several byte tokens, the first one has the character and the others "". Special tokens have
        their names.
        """
        pieces = []
        end = max(0, int(example.spans[example.spans[:, 0] >= 0][0, 0]))
        for token, (start, stop) in zip(example.input_ids.tolist(), example.spans.tolist(), strict=True):
            if start < 0:
                pieces.append(str(self.tokenizer.convert_ids_to_tokens(token)))
            else:
                pieces.append(example.text[end:stop])
                end = max(end, stop)
        return pieces

    def draw_attention(self, source: str, example: TextExample, weights: Sequence[Tensor], path: Path) -> Path:
        """Write an HTML page that shows the text for each layer, with backgrounds as strong as the weights."""
        file = Path(f"{path}.html")
        title = _escape(source if len(source) <= MAX_SHOWN else source[:MAX_SHOWN] + "...")
        layers = [self._layer(number, example, layer) for number, layer in enumerate(weights, start=1)]
        file.write_text(PAGE.format(title=title, layers="\n".join(layers)), encoding="utf-8")
        return file

    def _layer(self, number: int, example: TextExample, weights: Tensor) -> str:
        count = len(example.input_ids)
        unpadded = weights[-count:] if self.padding_side == "left" else weights[:count]
        pieces = list(self._pieces(example, unpadded.tolist()))
        strongest = max(weight for _, _, weight in pieces)
        spans = [
            f'<span{" class=special" if special else ""} title="{weight:.4f}" '
            f'style="background:rgba(255,110,0,{weight / (strongest or 1.0):.3f})">{_escape(piece)}</span>'
            for piece, special, weight in pieces
        ]
        return LAYER.format(number=number, strongest=strongest, spans="".join(spans))

    def _pieces(self, example: TextExample, weights: Sequence[float]) -> Iterator[tuple[str, bool, float]]:
        """Yield (characters, whether they are a special token, weight), merging tokens of the same character."""
        specials = (example.spans[:, 0] < 0).tolist()
        pending: tuple[str, bool, float] | None = None
        for piece, special, weight in zip(self.tokens(example), specials, weights, strict=True):
            if pending and not piece:
                pending = (*pending[:2], pending[2] + weight)
                continue
            if pending:
                yield pending
            pending = piece, special, weight
        if pending:
            yield pending


def _escape(text: str) -> str:
    """Escape a text for an HTML page."""
    return html.escape(escape_controls(text))


def _is_file_name(source: str) -> bool:
    """Check whether an input names a file, which may be missing: it has a known suffix and no white space.

    A URL is a text.
    """
    is_named = source.lower().endswith(TEXT_FILES + TABLE_FILES) and "://" not in source
    return is_named and not any(map(str.isspace, source))


def _shown(source: str) -> str:
    """Return an input for messages: the name of a row, or the beginning of a text."""
    return shorten_path(source) if isinstance(source, TableRow) else repr(source[:MAX_SHOWN])


def _is_table_file(source: str) -> bool:
    return source.lower().endswith(TABLE_FILES) and is_file(source)
