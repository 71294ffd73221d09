"""Limits on YAML and JSON that would exhaust memory, time or stack."""

from __future__ import annotations

import json
import time
from itertools import pairwise

import pytest

from perceiver_registry.description import read_description
from perceiver_registry.errors import UserError
from perceiver_registry.plain_data import (
    MAX_ALIASED,
    MAX_BYTES,
    MAX_DEPTH,
    PlainDataError,
    check_size,
    load_json,
    load_yaml,
    read_settings,
)

LETTERS = "abcdefghijkl"


def bomb(line: str, first: str) -> str:
    """Return a document in which each line has nine aliases of the previous line."""
    pairs = pairwise(LETTERS)
    return first + "".join(line.format(name=name, aliases=",".join([f"*{below}"] * 9)) for below, name in pairs)


LISTS = bomb("{name}: &{name} [{aliases}]\n", "a: &a [x, x, x]\n")
MERGES = bomb("{name}: &{name} {{k{name}: {{<<: [{aliases}]}}, l: [{aliases}]}}\n", "a: &a {x: 1}\n")

REFUSED = {
    "lists of lists": (LISTS, f"aliases expand to more than {MAX_ALIASED} values"),
    "merged mappings": (MERGES, f"aliases expand to more than {MAX_ALIASED} values"),
    "brackets": ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), f"nested more than {MAX_DEPTH} levels deep"),
    "many brackets": ("[" * 100_000, "nest"),
    "mappings": ("".join("  " * i + f"k{i}:\n" for i in range(MAX_DEPTH + 1)), "nested more than"),
    "dashes": ("- " * 2000, "nested more than"),
    "its own child": ("a: &a\n  b: *a\n", "the alias *a refers to a value that contains it"),
    "its own item": ("&a [*a]", "the alias *a refers to a value that contains it"),
    "an unknown alias": ("a: *b", "not YAML: found undefined alias"),
    "a 13th month": ("a: 2020-13-45", "not YAML: month must be in"),
    "an open bracket": ("a: [1,\n 2", "not YAML"),
    "code": ("!!python/object/apply:os.system [x]", "not YAML: could not determine a constructor"),
    "a control character": ("a: \x1b", "not YAML"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_yaml_beyond_the_limits_is_rejected_quickly(text, message):
    start = time.perf_counter()
    with pytest.raises(PlainDataError) as error:
        load_yaml(text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: &a {b: 1}\nc: *a\nd: {<<: *a, e: 2}", {"a": {"b": 1}, "c": {"b": 1}, "d": {"b": 1, "e": 2}}),
        ("[&x 1, *x, &y [2], *y]", [1, 1, [2], [2]]),
        ("", None),
        ("a: '\\e[31m'", {"a": "\\e[31m"}),
        (f"{{names: {list(range(30_000))}}}", {"names": list(range(30_000))}),
    ],
)
def test_valid_yaml_is_read(text, value):
    assert load_yaml(text) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested more than"),
        ('{"a":' * (MAX_DEPTH + 1) + "1" + "}" * (MAX_DEPTH + 1), "nested more than"),
        ("1" * 5000, "more than 4300 digits"),
        ('{"a": 1', "not JSON (Expecting ',' delimiter, line 1, column 8)"),
    ],
)
def test_json_beyond_the_limits_is_rejected(text, message):
    with pytest.raises(PlainDataError) as error:
        load_json(text)
    assert message in str(error.value)


def test_nesting_up_to_the_limit_is_read():
    text = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert load_json(text) == load_yaml(text) == json.loads(text)


def test_recursive_and_huge_data_is_rejected():
    loop: dict = {}
    loop["a"] = [loop]
    doubled: list = []
    for _ in range(40):
        doubled = [doubled, doubled]
    for value in (loop, doubled):
        with pytest.raises(PlainDataError):
            check_size(value)
        with pytest.raises(UserError, match=r"^m\.ckpt: its description of the model is damaged: (more than|nested)"):
            read_description({"format": 1, "plugins": [], "model": value}, "m.ckpt")
    shared = list(range(10))
    check_size({"a": [shared] * 1000, "b": "text", "c": (shared, {"d": shared})})


def test_settings_files_have_a_maximum_size_and_an_encoding(tmp_path):
    (tmp_path / "good.yaml").write_text("\ufeffa: é", encoding="utf-8")
    assert load_yaml(read_settings(tmp_path / "good.yaml")) == {"a": "é"}
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9")
    (tmp_path / "large.yaml").write_bytes(b" " * (MAX_BYTES + 1))
    for name, message in {"latin.yaml": r"not UTF-8 text \(byte 3\)", "large.yaml": "larger than 16 MiB"}.items():
        with pytest.raises(PlainDataError, match=message):
            read_settings(tmp_path / name)
