"""Names of classes: missing and mixed labels, similar names."""

from __future__ import annotations

from typing import Any

import pytest

from perceiver_plugins.sdk.data.class_names import ClassNames, similar_names
from perceiver_plugins.sdk.errors import DataError


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        (range(18, 48), "30 different whole numbers"),
        (["0.5", "1", "9.1"], "3 different numbers"),
        (range(1, 70), ""),
        (range(77), ""),
        ([-1, 1, 5], ""),
        (["a", *map(str, range(18, 60))], ""),
    ],
)
def test_classes_that_may_be_numbers_are_reported(labels: list[Any], kind: str) -> None:
    names = ClassNames("label")
    for label in labels:
        names.read(label, "t.csv")
    names.settle()
    lines = names.number_like()
    assert len(lines) == bool(kind)
    for line in lines:
        assert line.startswith(f"the {kind} in the column 'label' (label_column) are read as classes (to predict")


def test_classes_that_look_like_lists_are_reported() -> None:
    names = ClassNames("tags")
    for label in ("['a', 'b']", "[]", "['a']", "plain"):
        names.read(label, "t.csv")
    names.settle()
    (line,) = names.notes()
    assert line.startswith(
        "3 of the 4 classes in the column 'tags' (label_column) look like lists, and are read as names: "
    )


@pytest.mark.parametrize("missing", [None, "", " ", "\t\n", float("nan")])
def test_missing_labels_are_rejected(missing: Any) -> None:
    with pytest.raises(DataError, match=r"line 3: the label in the column 'kind' .* is missing"):
        ClassNames("kind").read(missing, "t.csv, line 3")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, True], "line 2: the label True .* is a boolean, but a whole number in line 1"),
        ([True, 0], "line 2: the label 0 .* is a whole number, but a boolean in line 1"),
        (["1", 1], "line 2: the label 1 .* is a whole number, but text in line 1"),
        ([0, "no"], "line 2: the label 'no' .* is text, but a whole number in line 1"),
        ([1, 0.5], "line 2: .* not a number"),
    ],
)
def test_labels_of_mixed_types_are_rejected(labels: list[Any], message: str) -> None:
    names = ClassNames("kind")
    first, second = labels
    names.read(first, "line 1")
    with pytest.raises(DataError, match=message):
        names.read(second, "line 2")


def test_integers_and_whole_floats_have_one_type() -> None:
    names = ClassNames("kind")
    assert [names.read(label, "here") for label in (1, 0.0, 1.0)] == ["1", "0", "1"]


@pytest.mark.parametrize(
    "pair",
    [("pos", "pos "), ("Pos", "pos"), ("é", "e\u0301"), ("Straße", "STRASSE"), ("1", "1.0"), ("a b", "a\u00a0 b")],
)
def test_similar_names_are_reported(pair: tuple[str, str]) -> None:
    (line,) = similar_names({pair[0]: 5, "other": 2, pair[1]: 1}, "the column 'kind'")
    assert f"{pair[0]!r} (5), {pair[1]!r} (1)" in line
    assert "other" not in line


def test_different_names_are_not_reported() -> None:
    assert similar_names({"pos": 1, "neg": 1, "": 1, "1": 1, "2": 1}, "here") == []
