"""Language of docstrings, comments, messages and documents: standard terms, one word per meaning."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT_SUFFIXES = {".cff", ".css", ".md", ".py", ".pyi", ".toml", ".txt", ".yaml", ".yml", ""}

FIRST_WORDS = re.compile(r"(what|how|whether|the way)\b", re.IGNORECASE)
"""Words that a docstring does not begin with: its first line is an imperative or a noun phrase."""

PHRASES = re.compile(
    r"\b(is|are) (?-i:none)\b|\bstands for\b|\bis asked\b|\blooked at\b|\bas ever\b|\bto mend\b|\bgo on with\b",
    re.IGNORECASE,
)
"""Phrases with a standard term; Python's ``is None`` is not one of them."""

PLACE = re.compile(r"(?<![a-z])places?(?![a-z])", re.IGNORECASE)
"""The word in prose, and as a part of a name in snake case."""

IDIOMS = re.compile(
    r"in[-_ ]place\b|\b(take|takes|took|taking) place\b|\bdecimal places?\b"
    r"|(num|audio|video)_places(?![a-z])"  # flags of optical flow and of the multimodal autoencoder
    r"|\.places\b|\bdef places\(|`places`|\bplaces_(can_be_imported|are_decoded_alone)\b",  # deprecated names
    re.IGNORECASE,
)
"""Standard uses of the word, and documented names that keep it."""


def tracked_files() -> list[Path]:
    """Return the text files under version control, without this one."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    paths = (ROOT / name for name in listed.decode().split("\0") if name)
    return [
        path
        for path in paths
        if path.suffix in TEXT_SUFFIXES and path.is_file() and path.name not in ("LICENSE", Path(__file__).name)
    ]


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of each docstring of a module, those of attributes included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value.strip()


def find_lines(pattern: re.Pattern[str], allowed: re.Pattern[str] | None = None) -> list[str]:
    """Return the lines of tracked files that contain a pattern, as ``file:line: text``."""
    found = []
    for path in tracked_files():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if pattern.search(allowed.sub("", line) if allowed else line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    return found


def report(found: list[str]) -> None:
    """Fail with all findings."""
    if found:
        pytest.fail(f"{len(found)} findings\n" + "\n".join(found), pytrace=False)


def test_docstrings_begin_with_an_imperative_or_noun_phrase():
    report(
        [
            f"{path.relative_to(ROOT)}:{line}: {text.splitlines()[0]}"
            for path in tracked_files()
            if path.suffix in (".py", ".pyi")
            for line, text in docstrings(path)
            if FIRST_WORDS.match(text)
        ]
    )


def test_phrases_are_plain():
    report(find_lines(PHRASES))


def test_place_has_its_standard_meaning():
    report(find_lines(PLACE, IDIOMS))


@pytest.mark.parametrize("text", ["There is none", "what it stands for", "Go on with it"])
def test_phrases_are_found(text):
    assert PHRASES.search(text)


def test_comparison_with_none_is_not_a_phrase():
    assert not PHRASES.search("if value is None and as everyone knows")


@pytest.mark.parametrize("text", ["a place", "Places", "num_of_places", "the Place of it"])
def test_place_is_found(text):
    assert PLACE.search(IDIOMS.sub("", text))


@pytest.mark.parametrize("text", ["replace", "placeholder", "add in place", "an in-place update", "it takes place"])
def test_standard_uses_are_not(text):
    assert not PLACE.search(IDIOMS.sub("", text))
