"""Python's own library, each character with what it is part of."""

from __future__ import annotations

import builtins
import hashlib
import keyword
import tokenize
from collections.abc import Iterator
from pathlib import Path

from perceiver_plugins.text.data.corpora import split_of, standard_library

CLASSES = ("space", "comment", "string", "number", "operator", "keyword", "builtin", "name")
"""What a character may be part of."""

SIZE = 2_000_000
"""About how many characters there are in all."""

_TABLES = ("encodings.", "pydoc_data.")
"""Packages that hold data rather than code."""

_KINDS = {tokenize.COMMENT: "comment", tokenize.STRING: "string", tokenize.NUMBER: "number", tokenize.OP: "operator"}
_BUILTINS = set(dir(builtins))


def code_windows(length: int) -> Iterator[tuple[str, str, list[str]]]:
    """(split, text, class of each character) of each window: some lines, with ``length`` characters at most.

    A longer line is a window of its own. Which modules there are, depends on their names, and on Python's version.
    """
    modules = [(name, path) for name, path in standard_library() if not name.startswith(_TABLES)]
    size = 0
    for name, path in sorted(modules, key=lambda module: hashlib.sha256(module[0].encode()).digest()):
        if size >= SIZE:
            return
        try:
            text, classes = classify(path)
        except (SyntaxError, UnicodeError, tokenize.TokenError):
            continue  # files of tests, some of which are wrong on purpose
        size += len(text)
        begin = end = 0
        for line in text.splitlines(keepends=True):
            if end > begin and end + len(line) - begin > length:
                yield split_of(name), text[begin:end], classes[begin:end]
                begin = end
            end += len(line)
        if text[begin:].strip():
            yield split_of(name), text[begin:], classes[begin:]


def classify(path: Path) -> tuple[str, list[str]]:
    """The text of a Python file, and the class of each of its characters.

    Raises:
        SyntaxError, UnicodeError, tokenize.TokenError: if it is not Python.
    """
    with tokenize.open(path) as file:
        lines = file.readlines()
    text = "".join(lines)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    classes = ["space"] * len(text)
    for token in tokenize.generate_tokens(iter(lines).__next__):
        kind = _KINDS.get(token.type)
        if token.type == tokenize.NAME:
            kind = "name"
            if keyword.iskeyword(token.string):
                kind = "keyword"
            elif token.string in _BUILTINS:
                kind = "builtin"
        elif tokenize.tok_name[token.type].startswith(("FSTRING", "TSTRING")):  # Python 3.12 has tokens for their parts
            kind = "string"
        if kind:
            begin = starts[token.start[0] - 1] + token.start[1]
            end = starts[token.end[0] - 1] + token.end[1]
            classes[begin:end] = [kind] * (end - begin)
    return text, classes
