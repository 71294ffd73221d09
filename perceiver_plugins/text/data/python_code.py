"""Code of Python's standard library with the lexical class of each character."""

from __future__ import annotations

import builtins
import hashlib
import keyword
import tokenize
from collections.abc import Iterator
from pathlib import Path

from perceiver_plugins.text.data.corpora import split_of, standard_library

CLASSES = ("space", "comment", "string", "number", "operator", "keyword", "builtin", "name")
"""Lexical classes of characters."""

TOTAL_CHARACTERS = 2_000_000
"""Characters after which no further module is read; arbitrary, about the size of ``python_docs``."""

_DATA_PACKAGES = ("encodings.", "pydoc_data.")
"""Packages of data rather than code."""

_TOKEN_CLASSES = {
    tokenize.COMMENT: "comment",
    tokenize.STRING: "string",
    tokenize.NUMBER: "number",
    tokenize.OP: "operator",
}
_BUILTINS = set(dir(builtins))


def code_windows(length: int) -> Iterator[tuple[str, str, list[str]]]:
    """Split modules into windows of whole lines; yield (split, text, class of each character) of each window.

    A window has at most ``length`` characters, unless it is a single longer line. The choice of modules depends on
    their names and Python's version.
    """
    modules = [(name, path) for name, path in standard_library() if not name.startswith(_DATA_PACKAGES)]
    size = 0
    for name, path in sorted(modules, key=lambda module: hashlib.sha256(module[0].encode()).digest()):
        if size >= TOTAL_CHARACTERS:
            return
        try:
            text, classes = classify(path)
        except (SyntaxError, UnicodeError, tokenize.TokenError):
            continue  # test files with deliberate errors
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
    """Return the text of a Python file, and the lexical class of each character.

    Raises:
        SyntaxError, UnicodeError, tokenize.TokenError: if the file is not valid Python.
    """
    with tokenize.open(path) as file:
        lines = file.readlines()
    text = "".join(lines)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    classes = ["space"] * len(text)
    for token in tokenize.generate_tokens(iter(lines).__next__):
        kind = _TOKEN_CLASSES.get(token.type)
        if token.type == tokenize.NAME:
            kind = "name"
            if keyword.iskeyword(token.string):
                kind = "keyword"
            elif token.string in _BUILTINS:
                kind = "builtin"
        elif tokenize.tok_name[token.type].startswith(("FSTRING", "TSTRING")):  # Python 3.12 and later
            kind = "string"
        if kind:
            begin = starts[token.start[0] - 1] + token.start[1]
            end = starts[token.end[0] - 1] + token.end[1]
            classes[begin:end] = [kind] * (end - begin)
    return text, classes
