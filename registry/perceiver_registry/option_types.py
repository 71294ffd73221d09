"""Conversion of option values to their types, and descriptions of types for error messages.

jsonargparse converts the values. Its error messages contain Python types and its own internals, so messages are
composed here from the type hint, independently of the version of jsonargparse.
"""

from __future__ import annotations

import copy
import datetime
import difflib
import inspect
import sys
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from numbers import Integral, Real
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from perceiver_registry.errors import shorten

WORDS: Mapping[Any, list[str]] = {
    bool: ["true", "false", "true or false"],
    int: ["a whole number", "whole numbers"],
    float: ["a number", "numbers"],
    str: ["a text", "texts"],
    type(None): ["null", "null"],
    datetime.timedelta: ["a duration", "durations"],
}
"""Descriptions of types: the alternatives of a single value, followed by the plural."""

SCALARS: Mapping[Any, type] = {bool: bool, int: Integral, float: Real, str: str, type(None): type(None)}
"""Classes of the values of types, of which NumPy's numbers are instances as well."""

SUGGESTION_CUTOFF = 0.5
"""Minimum similarity of suggested choices, as in :func:`perceiver_registry.errors.near`."""


class ConversionError(ValueError):
    """A value does not have the option's type.

    Args:
        message: expected type and actual value.
        cause: message of the library that rejected the value; may have several lines, for debugging only.
    """

    def __init__(self, message: str, cause: str):
        super().__init__(message)
        self.cause = cause


def convert(hint: Any, value: Any) -> Any:
    """Convert a value from a flag or a config file to the type of an option.

    Args:
        hint: the option's type hint.
        value: string or plain data. None: not given, valid for any type.

    Returns:
        The converted value: a tuple for a list, a number for a string of digits, and so on.

    Raises:
        ConversionError: if the value has another type; the message is "must be ..., got ...".
    """
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=hint)
    try:
        # parse_object modifies its argument.
        return parser.parse_object({"value": copy.deepcopy(value)}).as_dict()["value"]
    except ArgumentError as error:
        raise ConversionError(requirement(hint, value), str(error)) from error


def has_type(hint: Any, value: Any) -> bool:
    """Return whether a value has a type of :data:`WORDS`, or is a list or tuple of such values, as ``hint`` requires.

    Values of other types, and of literals, are not checked: the result is True.
    """
    return any(_is_instance(part, value) for part in _parts(hint))


def _is_instance(part: Any, value: Any) -> bool:
    if part in SCALARS:
        return isinstance(value, SCALARS[part])
    if get_origin(part) in (list, tuple):
        items = [each for each in get_args(part) if each is not Ellipsis]
        is_sequence = isinstance(value, list | tuple)
        return is_sequence and (len(set(items)) != 1 or all(has_type(items[0], item) for item in value))
    return True


def requirement(hint: Any, value: Any) -> str:
    """Compose the message about a value of a wrong type: "must be a whole number, got 'five'".

    Args:
        hint: the option's type hint.
        value: the value, which does not have that type.
    """
    described = describe_type(hint)
    if not described:
        return f"{spell(value)} is not a valid value (see --help)"
    known = [*choices(hint), *(name for each in classes(hint) for name in subclass_names(each))]
    near = difflib.get_close_matches(str(value), known, n=1, cutoff=SUGGESTION_CUTOFF)
    suggestion = f" (did you mean {near[0]!r}?)" if near else ""
    return f"must be {described}, got {spell(value)}{suggestion}"


def describe_type(hint: Any) -> str:
    """Describe the values of a type: "a whole number", "'normal' or 'local'", "a list of texts or null".

    Returns:
        The description, empty for types that do not restrict their values.
    """
    words = list(dict.fromkeys(word for part in _parts(hint) for word in _words(part)))
    implied = {word.strip("'") for word in words if word.startswith("'")}  # 32 beside '32'
    if "a number" in words:
        implied.add("a whole number")
    shown = [word for word in words if word not in implied and word != "null"]
    is_optional = "null" in words and bool(shown)
    return enumerate_or([*shown, "null"] if is_optional else shown)


def choices(hint: Any) -> list[str]:
    """List the values that a type enumerates, as written in a flag.

    These are the values of literals, the member names of enumerations, true, false and null.
    """
    words = (word for part in _parts(hint) if _enumerates_values(part) for word in _words(part))
    return list(dict.fromkeys(word.strip("'") for word in words))


def classes(hint: Any) -> Iterator[type]:
    """Yield the classes whose instances a type accepts, including item types of lists."""
    for part in _parts(hint):
        if get_origin(part) is not None and get_origin(part) is not Literal:
            yield from (each for argument in get_args(part) for each in classes(argument))
        elif _is_class_of_objects(part):
            yield part


def has_options(hint: Any) -> bool:
    """Return whether values of a type may have options of their own, as objects and mappings do."""
    return not all(part in WORDS or get_origin(part) is Literal or _is_enumeration(part) for part in _parts(hint))


def subclasses(base: type) -> Iterator[type]:
    """Yield all imported subclasses of a class, each before its own subclasses."""
    each: type
    for each in base.__subclasses__():
        yield each
        yield from subclasses(each)


def subclass_names(base: type) -> Iterator[str]:
    """Yield the names of the imported public subclasses of a class."""
    return (each.__name__ for each in subclasses(base) if not each.__name__.startswith("_"))


def spell(value: Any) -> str:
    """Format a value as in a flag or a config file, shortened."""
    if isinstance(value, str):
        return repr(shorten(value))
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else shorten(str(value))


def enumerate_or(words: Sequence[str]) -> str:
    """Join alternatives: "a, b or c"."""
    return " or ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def _parts(hint: Any) -> Iterator[Any]:
    """Yield the members of a union, without annotations."""
    if get_origin(hint) in (Union, types.UnionType):
        for part in get_args(hint):
            yield from _parts(part)
    elif get_origin(hint) is Annotated:
        yield from _parts(get_args(hint)[0])
    else:
        yield hint


def _enumerates_values(part: Any) -> bool:
    return get_origin(part) is Literal or part in (bool, type(None)) or _is_enumeration(part)


def _words(part: Any) -> list[str]:
    """Return the description of a member of a union, or the values that it enumerates; empty for other types."""
    if part in WORDS:
        return WORDS[part][:-1]
    if get_origin(part) is Literal:
        return [repr(value) if isinstance(value, str) else spell(value) for value in get_args(part)]
    if _is_enumeration(part):
        return [repr(member.name) for member in part]
    collection = _collection_words(part)
    if collection:
        return [collection]
    return [_with_article(part.__name__)] if _is_class_of_objects(part) else []


def _collection_words(part: Any) -> str:
    """Describe a collection type; empty for other types."""
    origin, arguments = get_origin(part) or part, get_args(part)
    if not _is_standard_class(origin) or not issubclass(origin, Iterable):
        return ""
    if issubclass(origin, Mapping):
        return "a mapping"
    if not arguments:
        return "a list"
    length = f"{len(arguments)} " if origin is tuple and Ellipsis not in arguments else ""
    return f"a list of {length}{_item_words(arguments[0])}"


def _item_words(hint: Any) -> str:
    """Describe the items of a list, in the plural."""
    parts = list(_parts(hint))
    words = [WORDS[part][-1] if part in WORDS else f"{part.__name__}s" for part in parts if _has_plural(part)]
    return enumerate_or(words) or "values"


def _has_plural(part: Any) -> bool:
    return part in WORDS or _is_class_of_objects(part)


def _is_enumeration(part: Any) -> bool:
    return inspect.isclass(part) and issubclass(part, Enum)


def _is_class_of_objects(part: Any) -> bool:
    """Return whether flags create objects of a class from its name and options. Tensors are written as numbers."""
    is_plain = not inspect.isclass(part) or _is_standard_class(part) or _is_enumeration(part)
    return not is_plain and part.__name__ != "Tensor"


def _is_standard_class(part: Any) -> bool:
    """Return whether a type is a class of the standard library."""
    return inspect.isclass(part) and part.__module__.partition(".")[0] in sys.stdlib_module_names


def _with_article(name: str) -> str:
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"
