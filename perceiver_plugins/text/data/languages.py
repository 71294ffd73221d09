"""Short texts in many languages, from the Unicode Consortium's locale data in the package Babel."""

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
"""Widely used languages that have many names, of which few are shared with other languages."""

MIN_LENGTH, MAX_LENGTH = 8, 60
"""Range of the minimum length that is drawn for each text, in characters; arbitrary."""


def languages_version() -> str:
    """Return the version that determines the texts."""
    return version("babel")


def language_texts() -> Iterator[tuple[str, str, str]]:
    """Yield (split, text, English name of the language) of each text.

    No name is in two texts, so that splits do not share names.
    """
    names_by_language = {language: _names(language) for language in LANGUAGES}
    occurrences = Counter(name.casefold() for names in names_by_language.values() for name in names)
    for language, names in names_by_language.items():
        ranked = sorted((_rank(name), name) for name in names if occurrences[name.casefold()] == 1)
        parts: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
        for rank, name in ranked:
            parts[{0: "validation", 1: "test"}.get(rank % 10, "train")].append(name)
        for split, part in parts.items():
            for text in _joined(part):
                yield split, text, _english_name(language)


def _joined(names: Iterable[str]) -> Iterator[str]:
    """Join names to texts of random minimum lengths."""
    rng = np.random.Generator(np.random.Philox(0))
    text, length = "", int(rng.integers(MIN_LENGTH, MAX_LENGTH))
    for name in names:
        text = f"{text}, {name}" if text else name
        if len(text) >= length:
            yield text
            text, length = "", int(rng.integers(MIN_LENGTH, MAX_LENGTH))


def _names(language: str) -> set[str]:
    """Collect the names of a language, without single characters, names with digits and lists of names."""
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
    """Hash a name to a number that determines its order and its split."""
    return int.from_bytes(hashlib.sha256(name.casefold().encode()).digest()[:8], "big")
