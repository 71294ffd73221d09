"""Optional pictures."""

from __future__ import annotations

import warnings

import pytest

from perceiver_plugins.sdk.tasks.pictures import MAX_NAME, drawable, optional


def test_errors_become_warnings() -> None:
    with pytest.warns(UserWarning, match="the picture left out: RuntimeError: no ink"), optional("the picture"):
        raise RuntimeError("no ink\nat all")


def test_missing_glyphs_are_not_reported() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with optional("the picture"):
            warnings.warn("Glyph 26085 (\\N{CJK}) missing from font(s) DejaVu Sans.", stacklevel=1)


def test_keyboard_interrupt_is_raised() -> None:
    with pytest.raises(KeyboardInterrupt), optional("the picture"):
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("name", "drawn"), [("\udce9t\udce9", "?t?"), ("a\n b", "a b"), ("x" * 99, "x" * (MAX_NAME - 3) + "...")]
)
def test_drawable_names(name: str, drawn: str) -> None:
    assert drawable(name) == drawn
