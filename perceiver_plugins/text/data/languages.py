"""Short texts in many languages, from the locale data that the package Babel has of the Unicode Consortium."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from typing import Any

import numpy as np

# fmt: off
LANGUAGES = (
    "ar", "bn", "cs", "de", "el", "en", "es", "fa", "fi", "fr", "he", "hi", "hu", "id", "it", "ja",
    "ka", "ko", "nl", "pl", "pt", "ro", "ru", "sv", "sw", "ta", "th", "tr", "uk", "ur", "vi", "zh",
)
# fmt: on
"""Widely used ones, whose names for things are many and mostly their own."""

SHORTEST, LONGEST = 8, 60
"""Characters that a text is to have; it ends with the name that reaches the number drawn from these."""


def languages_version() -> str:
    """What the texts depend on."""
    return version("babel")


def language_texts() -> Iterator[tuple[str, str, str]]:
    """(split, text, language) of each text, the language by its English name.

    A name is in one text only, so that no two splits share one.
    """
    names = {language: _names(language) for language in LANGUAGES}
    occurrences = Counter(name.casefold() for own in names.values() for name in own)
    for language, own in names.items():
        ranked = sorted((_rank(name), name) for name in own if occurrences[name.casefold()] == 1)
        parts: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
        for rank, name in ranked:
            parts[{0: "validation", 1: "test"}.get(rank % 10, "train")].append(name)
        for split, part in parts.items():
            for text in _joined(part):
                yield split, text, _english_name(language)


def _joined(names: Iterable[str]) -> Iterator[str]:
    """Names in a row, until a text has the length that is drawn for it."""
    rng = np.random.Generator(np.random.Philox(0))
    text, length = "", int(rng.integers(SHORTEST, LONGEST))
    for name in names:
        text = f"{text}, {name}" if text else name
        if len(text) >= length:
            yield text
            text, length = "", int(rng.integers(SHORTEST, LONGEST))


def _names(language: str) -> set[str]:
    """What things are called in a language, without what is hardly words, or more than one name."""
    from babel import Locale

    locale = Locale(language)
    contexts = [context["wide"] for part in (locale.days, locale.months) for context in part.values()]
    zones = [zone.get("long", {}) for zone in locale.meta_zones.values()]
    tables: list[Any] = [locale.languages, locale.territories, locale.scripts, locale.currencies, *contexts, *zones]
    found = {name for table in tables for name in table.values() if isinstance(name, str)}
    return {name for name in found if len(name) > 1 and "," not in name and not any(map(str.isdigit, name))}


def _english_name(language: str) -> str:
    from babel import Locale

    return str(Locale(language).english_name)


def _rank(name: str) -> int:
    """A number that depends on the name alone: the order of names, and their split."""
    return int.from_bytes(hashlib.sha256(name.casefold().encode()).digest()[:8], "big")
