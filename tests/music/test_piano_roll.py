"""Piano rolls: notes are found again in the pixels."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from perceiver_plugins.music.notes import Notes
from perceiver_plugins.sdk.errors import DataError

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")

from perceiver_plugins.music import piano_roll  # noqa: E402
from perceiver_plugins.music.piano_roll import BOTTOM, LEFT, draw_piano_roll, write_piano_roll  # noqa: E402


def recover(image, scale: float, height: int, highest: int) -> list[tuple[int, float, float]]:
    """Find (pitch, onset, end) of the notes in a piano roll: runs of colour that begin with a dark column."""
    pixels = np.asarray(image)[:-BOTTOM, LEFT:].astype(int)
    found = []
    for row in range(len(pixels) // height):
        line = pixels[row * height]
        coloured = line.max(axis=1) - line.min(axis=1) > 12
        edges = np.flatnonzero((line == piano_roll.EDGE).all(axis=1))
        for edge in edges:
            end = edge + 1
            while end < len(line) and coloured[end] and end not in edges:
                end += 1
            found.append((highest - row, edge / scale, end / scale))
    return sorted(found)


def test_notes_are_found_again():
    rng = np.random.default_rng(0)
    rows = []
    for pitch in rng.choice(np.arange(30, 90), 25, replace=False).tolist():
        ends = np.cumsum(rng.uniform(0.1, 2, 6))
        rows += [(a, b, pitch, int(rng.integers(1, 128)), False) for a, b in pairwise(ends)]
    notes = Notes.from_rows(rows)
    found = np.array(recover(draw_piano_roll(notes), 50, 6, 95))
    expected = np.array(sorted((row[2], row[0], row[1]) for row in rows))
    assert (found[:, 0] == expected[:, 0]).all()
    assert (expected[:, 1:] - found[:, 1:]).min() > -1e-6
    assert (expected[:, 1:] - found[:, 1:]).max() < 1 / 50  # a pixel


def test_louder_notes_are_darker_and_percussion_has_its_own_colour():
    rows = [(0, 1, 60, 20, False), (0, 1, 62, 120, False), (0, 1, 64, 120, True)]
    pixels = np.asarray(draw_piano_roll(Notes.from_rows(rows))).astype(int)
    soft, loud, drum = (pixels[6 * (71 - pitch), LEFT + 10] for pitch in (60, 62, 64))
    assert loud.sum() < soft.sum()
    assert loud.argmax() == 2
    assert drum.argmax() == 0


def test_mark():
    notes = Notes.from_rows([(0, 4, 60, 64, False)])
    pixels = np.asarray(draw_piano_roll(notes, mark=2.0))[:-BOTTOM]
    assert (pixels[:, LEFT + 100] == piano_roll.MARK).all()
    assert (np.asarray(draw_piano_roll(notes, mark=99))[:-BOTTOM, -1] == piano_roll.MARK).all()
    assert not (np.asarray(draw_piano_roll(notes)) == piano_roll.MARK).all(axis=2).any()


def test_long_pieces_are_scaled_to_the_largest_width():
    image = draw_piano_roll(Notes.from_rows([(0, 3600, 60, 64, False), (7200, 7201, 60, 64, False)]))
    assert piano_roll.MAX_WIDTH <= image.width <= piano_roll.MAX_WIDTH + LEFT + 2


@pytest.mark.parametrize("rows", [[], [(0, 0, 0, 1, False)], [(0, 0.001, 127, 1, False)]])
def test_small_pieces(rows):
    image = draw_piano_roll(Notes.from_rows(rows))
    assert image.height == BOTTOM + 6 * (8 if rows and rows[0][2] == 127 else 12)


def test_files(tmp_path):
    notes = Notes.from_rows([(0, 1, 60, 64, False)])
    write_piano_roll(tmp_path / "a.png", notes)
    with Image.open(tmp_path / "a.png") as image:
        assert (np.asarray(image) == np.asarray(draw_piano_roll(notes))).all()
    with pytest.raises(DataError, match=r"missing/a.png: cannot be written \(No such file or directory\)$"):
        write_piano_roll(tmp_path / "missing" / "a.png", notes)
