"""Pictures that nobody asked for."""

from __future__ import annotations

import warnings

import pytest

from perceiver_plugins.sdk.tasks.pictures import MAX_NAME, drawable, optional


def test_a_failure_is_a_warning() -> None:
    with pytest.warns(UserWarning, match="the picture left out: RuntimeError: no ink"), optional("the picture"):
        raise RuntimeError("no ink\nat all")


def test_missing_glyphs_are_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with optional("the picture"):
            warnings.warn("Glyph 26085 (\\N{CJK}) missing from font(s) DejaVu Sans.", stacklevel=1)


def test_a_person_can_still_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt), optional("the picture"):
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("name", "drawn"), [("\udce9t\udce9", "?t?"), ("a\n b", "a b"), ("x" * 99, "x" * (MAX_NAME - 3) + "...")]
)
def test_names_can_be_drawn(name: str, drawn: str) -> None:
    assert drawable(name) == drawn
