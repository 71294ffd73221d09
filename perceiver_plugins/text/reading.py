"""Texts that a person gives to ``perceiver predict``."""

from __future__ import annotations

import glob
import html
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from perceiver_core import Batch, InputAdapter
from perceiver_plugins.text.data.chunks import Collator
from perceiver_plugins.text.data.encoding import DocumentEncoder
from perceiver_plugins.text.tokenizers import deserialize_tokenizer
from perceiver_plugins.training.files import COMPRESSIONS, find_files, is_table, read_documents
from perceiver_plugins.training.reading import Reader
from perceiver_registry import UserError

TEXT_FILES = tuple(f".txt{compression}" for compression in ("", *COMPRESSIONS))

SHOWN = 60
"""Characters of a text that a message or a title shows."""

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


class TextReader(Reader):
    """Reads texts, and text files as one text each, with the tokenizer that the model was trained with.

    An input that names a file is that file, one that names a folder and has a / in it is the .txt files therein; any
    other is a text itself. A text that is longer than the model's input is cut off as in training, and a warning says
    so once.

    Args:
        data: the ``description()`` of the data module.
        input_adapter: the model's input adapter.

    Raises:
        UserError: if the model was not trained on texts.
    """

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
        self._has_warned = False

    def expand(self, inputs: Sequence[str]) -> list[str]:
        """The texts as they are, and the files that the other inputs name.

        Raises:
            UserError: if a pattern or folder stands for no file.
        """
        found: list[str] = []
        for name in inputs:
            path = os.path.expanduser(name)
            if "/" in path and os.path.isdir(path):
                files = [file for file in sorted(Path(path).rglob("*")) if file.name.lower().endswith(TEXT_FILES)]
                if not files:
                    raise UserError(f"{path}: there are no .txt files in the folder")
                found += map(str, files)
            elif os.path.isfile(path):
                found.append(path)
            elif name.lower().endswith(TEXT_FILES) and glob.has_magic(name):
                found += map(str, find_files(name, "input"))
            else:
                found.append(path if _names_a_file(name) else name)
        return found

    def read(self, source: str) -> TextExample:
        """The tokens of a text.

        Raises:
            UserError: if it has none, or its file cannot be read.
        """
        if _names_a_file(source) and not os.path.isfile(source):
            find_files(source, "input")  # says what is near
        text = _text_of_file(Path(source)) if os.path.isfile(source) else source
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{source[:SHOWN]!r}: not UTF-8 text (character {error.start})") from error
        ids, spans = self.encoder.encode_with_spans(text)
        if not len(ids):
            raise UserError(f"{source[:SHOWN]!r}: there is no text to read")
        prefix, suffix = self.encoder.prefix, self.encoder.suffix
        spare = int(max(0, len(ids) + len(prefix) + len(suffix) - self.max_seq_len))
        if spare:
            self._warn(source, len(ids))
            kept = slice(spare, None) if self.truncation_side == "left" else slice(len(ids) - spare)
            ids, spans = ids[kept], spans[kept]
        around = [np.full((len(special), 2), -1) for special in (prefix, suffix)]
        return TextExample(
            np.concatenate([np.array(prefix, np.int64), ids, np.array(suffix, np.int64)]),
            np.concatenate([around[0], spans, around[1]]),
            text,
        )

    def _warn(self, source: str, length: int) -> None:
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
        title = html.escape(source if len(source) <= SHOWN else source[:SHOWN] + "...")
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
            f'style="background:rgba(255,110,0,{weight / (strongest or 1.0):.3f})">{html.escape(piece)}</span>'
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


def _names_a_file(source: str) -> bool:
    """Whether an input can only be meant as a file, whether it is there or not."""
    return source.lower().endswith(TEXT_FILES) and not any(map(str.isspace, source))


def _text_of_file(path: Path) -> str:
    if is_table(path):
        raise UserError(f"{path}: a table, not a text; write its texts into a file, one a line, for --input=FILE")
    return "".join(piece.text for piece in read_documents(path))
