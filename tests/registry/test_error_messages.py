"""Suggested and listed names in error messages."""

from __future__ import annotations

import pytest

from perceiver_registry.errors import in_one_line, near, some_of

MANY = [f"column{number}" for number in range(1000)]


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        ("txt", ["text", "image"], "did you mean 'text'?"),
        ("zzz", ["text", "image"], "known: image, text"),
        ("zzz", [], "known: none"),
        ("x" * 3000, ["x" * 2999], f"did you mean '{'x' * 57}...'?"),
    ],
)
def test_similar_names_are_suggested(name, known, said):
    assert near(name, known) == said


@pytest.mark.parametrize("listed", [None, MANY])
def test_messages_do_not_list_all_of_many_names(listed):
    said = near("zzz", MANY, listed)
    assert said.startswith("known: ")
    assert said.endswith(", ... (1000 in all)")
    assert len(said) < 150
    assert near("zzz", MANY, "a list of them is elsewhere") == "a list of them is elsewhere"


def test_names_are_listed_up_to_a_maximum():
    assert some_of(MANY[:8]) == ", ".join(MANY[:8])
    assert some_of(MANY[:9]).endswith("column7, ... (9 in all)")


def test_third_party_error_is_one_printable_line():
    assert in_one_line(ValueError("two\nlines \x1b[31m\u202e é")) == r"ValueError: two lines \u001b[31m\u202e é"
