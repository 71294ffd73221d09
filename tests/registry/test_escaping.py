"""Escaping of control characters for terminals."""

from __future__ import annotations

import json
import unicodedata

import pytest

from perceiver_registry.escaping import ENCODING_ERRORS, escape_controls, escape_line

KEPT = {
    "letters": "naïve Straße 日本 😀",
    "combining marks": "e\u0301 नि",
    "right to left": "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "marks of direction": "\u200e\u200f\u061c",
    "joiners": "\u0645\u06cc\u200c\u062e \U0001f468\u200d\U0001f469",
    "flags": "🏴\U000e0067\U000e0062\U000e007f",
    "white space": "a\tb\u00a0c",
    "backslashes": r"C:\u001b",
}

ESCAPED = {
    "escape sequence": ("\x1b[31mred", r"\u001b[31mred"),
    "title of the window": ("\x1b]0;x\x07", r"\u001b]0;x\u0007"),
    "8-bit sequence": ("\x9b2J", r"\u009b2J"),
    "overwriting": ("good\rbad\x08\x7f", r"good\u000dbad\u0008\u007f"),
    "null": ("a\0b", r"a\u0000b"),
    "override": ("\u202efdp.exe", r"\u202efdp.exe"),
    "isolate": ("\u2066a\u2069", r"\u2066a\u2069"),
    "bytes": ("stra\udcdfe", r"stra\udcdfe"),
}


@pytest.mark.parametrize("text", KEPT.values(), ids=KEPT)
def test_text_of_any_script_is_unchanged(text):
    assert escape_controls(text) == text
    assert escape_line(text) == text


@pytest.mark.parametrize(("text", "escaped"), ESCAPED.values(), ids=ESCAPED)
def test_control_characters_are_escaped(text, escaped):
    assert escape_controls(text) == escaped
    assert escape_line(text) == escaped
    assert json.loads(escape_controls(json.dumps(text, ensure_ascii=False))) == text


def test_line_ends_are_kept_or_escaped():
    assert escape_controls("a\nb") == "a\nb"
    assert escape_line("a\nb\u2028c\u2029") == r"a\u000ab\u2028c\u2029"


def test_all_control_characters_are_escaped():
    characters = "".join(map(chr, range(0x3000)))
    left = [c for c in escape_controls(characters) if unicodedata.category(c) == "Cc"]
    assert left == ["\t", "\n"]
    overrides = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    assert not any(unicodedata.bidirectional(c) in overrides for c in escape_controls(characters))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_unencodable_characters_are_escaped(encoding):
    text = "naïve 日本 😀"
    written = json.dumps(text, ensure_ascii=False).encode(encoding, ENCODING_ERRORS)
    assert json.loads(written.decode(encoding)) == text
