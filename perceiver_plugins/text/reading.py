"""Texts that a person gives to ``perceiver predict``."""

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
from perceiver_plugins.sdk.data.files import COMPRESSIONS, find_files, is_table, read_documents
from perceiver_plugins.sdk.data.missing_files import missing
from perceiver_plugins.sdk.data.paths import as_path, is_file, is_folder, is_pattern
from perceiver_plugins.sdk.errors import DataError
from perceiver_plugins.sdk.prediction.reader import Reader
from perceiver_plugins.text.data.chunks import Collator
from perceiver_plugins.text.data.encoding import DocumentEncoder
from perceiver_plugins.text.tokenizers import deserialize_tokenizer, serialize_tokenizer
from perceiver_registry import UserError
from perceiver_registry.escaping import escape_controls

TEXT_FILES = tuple(f".txt{compression}" for compression in ("", *COMPRESSIONS))

SHOWN = 60
"""Characters of a text that a message or a title shows."""

CHARACTERS_PER_TOKEN = 16
"""Characters that are tokenised at first for each token of the model's input. Arbitrary: tokens of words have four."""

MAX_CHARACTERS_PER_TOKEN = 1024
"""Characters that are tokenised at most for each token of the model's input, be it that words never end."""

MIN_CHARACTERS = 2**16
"""Characters of a text that are read in any case, if there are so many."""

MARGIN = 16
"""Tokens beyond the model's input. Near the end of a part, tokens may differ from those of the whole text."""

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
<div>The strongest colour stands for {strongest:.2%} of the attention.</div>
<p dir="auto">{spans}</p>
</section>"""


class TextExample(NamedTuple):
    """A text that was read.

    Attributes:
        input_ids: (n,) its tokens, special ones around them included.
        spans: (n, 2) where the characters of each begin and end in the text; -1 for special tokens.
        text: the text.
    """

    input_ids: np.ndarray
    spans: np.ndarray
    text: str


class Excerpt(NamedTuple):
    """Part of a text that a model may read.

    Attributes:
        text: the text or, if it is far longer than the model's input, its beginning or end.
        is_whole: whether it is all of the text.
    """

    text: str
    is_whole: bool


class TextReader(Reader):
    """Reads texts, and text files as one text each, with the tokenizer that the model was trained with.

    An input that names a file is that file, one that names a folder is the .txt files therein; any other is a text
    itself. A text that is longer than the model's input is cut off as in training, and a warning says so once. Of a
    file, no more is kept in memory than may be needed.

    Args:
        data: the ``description()`` of the data module.
        input_adapter: the model's input adapter.

    Raises:
        UserError: if the model was not trained on texts.
    """

    long_inputs = True

    def __init__(self, data: Mapping[str, Any], input_adapter: InputAdapter) -> None:
        super().__init__(data, input_adapter)
        if "tokenizer" not in data:
            raise UserError("the checkpoint names no tokenizer: it was not trained with a TextDataModule")
        self.tokenizer = deserialize_tokenizer(data["tokenizer"])
        self.add_special_tokens = bool(data.get("add_special_tokens", False))
        self.encoder = DocumentEncoder(
            self.tokenizer, False, self.add_special_tokens, bool(data.get("add_eos_token", False))
        )
        self.max_seq_len = min(data.get("max_seq_len") or np.inf, getattr(input_adapter, "max_seq_len", None) or np.inf)
        self.padding_side: Literal["left", "right"] = data.get("padding_side", "right")
        self.truncation_side = data.get("truncation_side", "right")
        self._collator = Collator(int(self.tokenizer.pad_token_id or 0), self.padding_side)
        self._max_characters = max(MIN_CHARACTERS, MAX_CHARACTERS_PER_TOKEN * self.max_seq_len)
        self._has_warned = False

    @classmethod
    def example(cls, input_adapter: InputAdapter, folder: Path) -> tuple[Reader, list[str]]:
        vocabulary = ["[PAD]", "[UNK]", "[MASK]", "a", "small", "text"]  # within the smallest vocabularies
        words = Tokenizer(WordLevel({word: number for number, word in enumerate(vocabulary)}, unk_token="[UNK]"))
        words.pre_tokenizer = Whitespace()
        special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"}
        tokenizer = serialize_tokenizer(PreTrainedTokenizerFast(tokenizer_object=words, **special))
        return cls({"tokenizer": tokenizer}, input_adapter), ["a [MASK] text", "a small small [MASK]"]

    def expand(self, inputs: Sequence[str]) -> list[str]:
        """The texts as they are, and the files that the other inputs name.

        Raises:
            UserError: if a pattern or folder stands for no file.
        """
        return [source for name in inputs for source in self._expand(name)]

    def sources(self, inputs: Iterable[str]) -> Iterator[str]:
        if isinstance(inputs, Sequence):
            return iter(self.expand(inputs))
        return (source for name in inputs for source in self._expand(name))

    def _expand(self, name: str) -> list[str]:
        path = as_path(name)
        if is_folder(name):
            files = select_files(FolderTree(path), TEXT_FILES, "texts")
            if not files:
                raise UserError(f"{path}: there are no .txt files in the folder")
            return [str(path / file) for file in files]
        if name.lower().endswith(TEXT_FILES) and is_pattern(name):
            return [str(file) for file in find_files(name, "input")]
        return [str(path) if is_file(name) or _names_a_file(name) else name]

    def excerpt(self, source: str) -> Excerpt:
        """Read as much of a text as the model may need.

        Raises:
            UserError: if it is not Unicode, or its file cannot be read.
        """
        if is_file(source):
            return self._excerpt_of_file(Path(source))
        if _names_a_file(source):
            raise DataError(f"input: {missing(Path(source))}")
        try:
            source.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{source[:SHOWN]!r}: not UTF-8 text (character {error.start})") from error
        return self._cut(source, True)

    def _excerpt_of_file(self, path: Path) -> Excerpt:
        if is_table(path):
            raise UserError(f"{path}: a table, not a text; write its texts into a file, one a line, for --input=FILE")
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
        """The part of a text that the model reads: so many characters of its end or beginning."""
        return text[-length:] if self.truncation_side == "left" else text[:length]

    def read(self, source: str) -> TextExample:
        """The tokens of a text.

        Raises:
            UserError: if it has none, or its file cannot be read.
        """
        text, is_whole = self.excerpt(source)
        ids, spans, text, is_whole = self._encode(text, is_whole)
        if not len(ids):
            raise UserError(f"{source[:SHOWN]!r}: there is no text to read")
        prefix, suffix = self.encoder.prefix, self.encoder.suffix
        spare = int(max(0, len(ids) + len(prefix) + len(suffix) - self.max_seq_len))
        if spare or not is_whole:
            self._warn(source, str(len(ids)) if is_whole else f"more than {self.max_seq_len}")
        if spare:
            kept = slice(spare, None) if self.truncation_side == "left" else slice(len(ids) - spare)
            ids, spans = ids[kept], spans[kept]
        around = [np.full((len(special), 2), -1) for special in (prefix, suffix)]
        return TextExample(
            np.concatenate([np.array(prefix, np.int64), ids, np.array(suffix, np.int64)]),
            np.concatenate([around[0], spans, around[1]]),
            text,
        )

    def _encode(self, text: str, is_whole: bool) -> tuple[np.ndarray, np.ndarray, str, bool]:
        """Tokens and spans of as much of a text as fills the model's input, that part, and whether it is all."""
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
                f"{source[:SHOWN]!r} has {length} tokens: the model reads its {part} only, as its input is "
                f"{self.max_seq_len} tokens long; so with other long texts"
            )

    def collate(self, examples: Sequence[TextExample]) -> Batch:
        """``input_ids`` and ``attention_mask`` (b, n), padded as in training."""
        return dict(self._collator.inputs([example.input_ids for example in examples]))

    def tokens(self, example: TextExample) -> list[str]:
        """The characters of each token, with white space that was left out before it; together they are the text.

        The first byte of a character has it, its other bytes have "". Special tokens have their names.
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
        """Writes a page with the text once for each layer, its background the stronger the more weight it has."""
        file = Path(f"{path}.html")
        title = _shown(source if len(source) <= SHOWN else source[:SHOWN] + "...")
        layers = [self._layer(number, example, layer) for number, layer in enumerate(weights, start=1)]
        file.write_text(PAGE.format(title=title, layers="\n".join(layers)), encoding="utf-8")
        return file

    def _layer(self, number: int, example: TextExample, weights: Tensor) -> str:
        count = len(example.input_ids)
        own = weights[-count:] if self.padding_side == "left" else weights[:count]
        pieces = list(self._pieces(example, own.tolist()))
        strongest = max(weight for _, _, weight in pieces)
        spans = [
            f'<span{" class=special" if special else ""} title="{weight:.4f}" '
            f'style="background:rgba(255,110,0,{weight / (strongest or 1.0):.3f})">{_shown(piece)}</span>'
            for piece, special, weight in pieces
        ]
        return LAYER.format(number=number, strongest=strongest, spans="".join(spans))

    def _pieces(self, example: TextExample, weights: Sequence[float]) -> Iterator[tuple[str, bool, float]]:
        """(characters, whether it is a special token, weight): tokens that share characters in one."""
        specials = (example.spans[:, 0] < 0).tolist()
        held: tuple[str, bool, float] | None = None
        for piece, special, weight in zip(self.tokens(example), specials, weights, strict=True):
            if held and not piece:
                held = (*held[:2], held[2] + weight)
                continue
            if held:
                yield held
            held = piece, special, weight
        if held:
            yield held


def _shown(text: str) -> str:
    """A text as it is shown in a page."""
    return html.escape(escape_controls(text))


def _names_a_file(source: str) -> bool:
    """Whether an input can only be meant as a file, whether it is there or not."""
    return source.lower().endswith(TEXT_FILES) and not any(map(str.isspace, source))
