"""Kinds of columns: numbers, booleans, dates, categories, texts and images, inferred from cells or named by flags."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from perceiver_plugins.sdk.data.cells import date, is_boolean, is_missing, is_number
from perceiver_plugins.sdk.data.dates import DATE_FEATURES, TIME_FEATURES
from perceiver_registry import UserError
from perceiver_registry.errors import near

FEATURES: Mapping[str, Sequence[str]] = {
    "number": ("",),
    "boolean": ("",),
    "date": DATE_FEATURES,
    "datetime": (*DATE_FEATURES, *TIME_FEATURES),
    "category": (),
    "text": (),
    "image": (),
}
"""Names of the numeric features of each kind of column."""

INFERENCE_ROWS = 10_000
"""Number of the first training rows that decide the kinds of columns. Arbitrary."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
"""Suffixes by which names of image files are recognised."""

EMBEDDED_KINDS = ("text", "image")
"""Kinds of columns with an input adapter of their own."""

MIN_TEXT_ROWS = 20
"""Fewest values for a column to be recognised as texts; arbitrary."""

MIN_TEXT_WORDS = 4
"""Mean number of words from which different values are texts, not categories; arbitrary."""


def kind_of_column(name: str, kinds: Mapping[str, str]) -> str:
    """Return the kind of a column; "number" if ``kinds`` lacks it."""
    return kinds.get(name, "number")


def feature_names(names: Iterable[str], kinds: Mapping[str, str]) -> list[str]:
    """Return the names of the numeric features of columns: "age", "day: sin of year"."""
    return [f"{name}: {part}" if part else name for name in names for part in FEATURES[kind_of_column(name, kinds)]]


def categorical_columns(names: Iterable[str], kinds: Mapping[str, str]) -> list[str]:
    """Return the names of the categorical columns."""
    return [name for name in names if kind_of_column(name, kinds) == "category"]


def embedded_columns(names: Iterable[str], kinds: Mapping[str, str]) -> list[str]:
    """Return the names of the columns with an input adapter of their own."""
    return [name for name in names if kind_of_column(name, kinds) in EMBEDDED_KINDS]


def infer_kind(values: Sequence[Any]) -> str:
    """Infer the kind of a column from its cells.

    The first rule that holds decides; missing cells do not count:

    1. no cells: "number";
    2. all cells are booleans, or ``true`` and ``false``: "boolean";
    3. at least half are numbers: "number", and other cells are errors;
    4. at least half are ISO dates: "date", or "datetime" if one of them has a time of day; other cells are errors;
    5. all cells are names or contents of image files: "image";
    6. most cells differ and have several words: "text";
    7. otherwise "category".
    """
    known = [value for value in values if not is_missing(value)]
    if not known:
        return "number"
    if all(map(is_boolean, known)):
        return "boolean"
    if 2 * sum(map(is_number, known)) >= len(known):
        return "number"
    dates = [found for found in map(_date_or_none, known) if found is not None]
    if 2 * len(dates) >= len(known):
        return kind_of_dates(dates)
    if all(map(_is_image, known)):
        return "image"
    return "text" if _are_texts(known) else "category"


def kind_of_dates(dates: Sequence[datetime.datetime]) -> str:
    """Return "datetime" if one of the dates has a time of day, otherwise "date"."""
    return "datetime" if any(found.time() != datetime.time() for found in dates) else "date"


def _date_or_none(value: Any) -> datetime.datetime | None:
    try:
        return date(value)
    except ValueError:
        return None


def _is_image(value: Any) -> bool:
    """Check whether a cell is the name or content of an image file, or an image of the library ``datasets``."""
    if isinstance(value, str):
        return value.strip().lower().endswith(IMAGE_SUFFIXES)
    return isinstance(value, bytes) or (isinstance(value, Mapping) and value.keys() == {"bytes", "path"})


def _are_texts(known: Sequence[Any]) -> bool:
    texts = [value for value in known if isinstance(value, str)]
    words = sum(len(text.split()) for text in texts)
    return len(known) >= MIN_TEXT_ROWS and 2 * len(set(texts)) > len(known) and words >= MIN_TEXT_WORDS * len(known)


def choose_kinds(
    cells: Mapping[str, Sequence[Any]],
    chosen: Mapping[str, str],
    dictionaries: frozenset[str] = frozenset(),
) -> dict[str, str]:
    """Return the kind of each column that does not contain numbers.

    Args:
        cells: cells of the first training rows, by column.
        chosen: kinds by column, from flags or the trained model.
        dictionaries: columns that the file format marks as categorical.
    """
    kinds = {}
    for name, values in cells.items():
        kind = chosen.get(name) or ("category" if name in dictionaries else infer_kind(values))
        if name in chosen and kind == "date":
            kind = kind_of_dates([found for found in map(_date_or_none, values) if found is not None])
        kinds[name] = kind
    return {name: kind for name, kind in kinds.items() if kind != "number"}


def named_kinds(flags: Mapping[str, tuple[str, Sequence[str] | None]], names: Sequence[str]) -> dict[str, str]:
    """Return the kinds of the columns that flags name.

    Args:
        flags: kind and columns of each flag.
        names: the feature columns.

    Raises:
        UserError: if a flag names a column that is not a feature column, or that another flag names.
    """
    sources: dict[str, str] = {}
    kinds = {}
    for flag, (kind, columns) in flags.items():
        for name in columns or ():
            if name not in names:
                raise UserError(f"{flag}: {name!r} is not a feature column ({near(name, names)})")
            if sources.setdefault(name, flag) != flag:
                raise UserError(f"{flag}: {name!r} is in {sources[name]} as well (remove it from one of them)")
            kinds[name] = kind
    return kinds


def refuse_other_kinds(flags: Mapping[str, tuple[str, Sequence[str] | None]], trained: Mapping[str, str]) -> None:
    """Raise UserError if a flag names a column that has another kind in a trained model.

    Args:
        flags: kind and columns of each flag.
        trained: kinds of the model's columns that do not contain numbers.
    """
    for flag, (kind, columns) in flags.items():
        for name in columns or ():
            known = kind_of_column(name, trained)
            if known.removesuffix("time") != kind:
                raise UserError(f"{flag}: {name!r} is a {known} in the trained model (leave it out)")


def describe_kinds(names: Sequence[str], kinds: Mapping[str, str], categories: Mapping[str, Sequence[str]]) -> str:
    """Describe the kinds of columns in one line: "2 numbers; categories: city (7); dates: day"."""
    titles = {
        "boolean": "booleans",
        "date": "dates",
        "datetime": "dates with time",
        "category": "categories",
        "text": "texts",
        "image": "images",
    }
    parts = []
    if numbers := len(names) - len(kinds):
        parts.append(f"{numbers:,} {'number' if numbers == 1 else 'numbers'}")
    for kind, title in titles.items():
        found = [name for name in names if kinds.get(name) == kind]
        counted = (f"{name} ({len(categories[name]):,})" if name in categories else name for name in found)
        if found:
            parts.append(f"{title}: {', '.join(counted)}")
    return "; ".join(parts)
