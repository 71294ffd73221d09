"""Piano rolls: pictures of notes by time and pitch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from perceiver_plugins.music.notes import Notes
from perceiver_plugins.sdk.errors import DataError

MAX_WIDTH = 8000
"""Largest width in pixels: longer pieces have fewer pixels per second. Arbitrary."""

LEFT, BOTTOM = 34, 16
"""Margins in pixels, as large as the labels."""

WHITE_KEY, BLACK_KEY, LINE, LABEL = (255, 255, 255), (240, 241, 244), (205, 208, 214), (70, 74, 84)
EDGE = (20, 24, 40)
MARK = (220, 60, 40)
SOFT, LOUD = np.array([150, 190, 240]), np.array([25, 70, 180])
SOFT_DRUM, LOUD_DRUM = np.array([240, 200, 150]), np.array([190, 90, 20])
"""Colours: pitched notes are blue, percussion is brown, darker if louder. The first pixels of a note are ``EDGE``.
Arbitrary."""

BLACK_KEYS = (1, 3, 6, 8, 10)
"""Semitones above C of the black keys."""


@dataclass(frozen=True)
class Layout:
    """Layout of a piano roll.

    Attributes:
        lowest: lowest pitch.
        highest: highest pitch.
        duration: seconds.
        pixels_per_second: horizontal scale.
        pixels_per_pitch: height of a pitch in pixels.
    """

    lowest: int
    highest: int
    duration: float
    pixels_per_second: float
    pixels_per_pitch: int

    @classmethod
    def fit(cls, notes: Notes, pixels_per_second: float, pixels_per_pitch: int) -> Layout:
        """Choose the range of pitches, whole octaves, and the scale."""
        low, high = (60, 60) if not notes.size else (int(notes.pitches.min()), int(notes.pitches.max()))
        duration = max(notes.duration, 1.0)
        scale = min(pixels_per_second, MAX_WIDTH / duration)
        return cls(low // 12 * 12, min(127, high // 12 * 12 + 11), duration, scale, pixels_per_pitch)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, without margins."""
        width = int(np.ceil(self.duration * self.pixels_per_second)) + 1
        return width, (self.highest - self.lowest + 1) * self.pixels_per_pitch

    def column(self, seconds: float) -> int:
        """Return the x coordinate in pixels of a time, without the margin."""
        return int(np.floor(seconds * self.pixels_per_second + 1e-6))  # against rounding errors

    def rows(self, pitch: int) -> slice:
        """Return the y coordinates in pixels of a pitch."""
        top = (self.highest - pitch) * self.pixels_per_pitch
        return slice(top, top + self.pixels_per_pitch)


def draw_piano_roll(
    notes: Notes, mark: float | None = None, pixels_per_second: float = 50, pixels_per_pitch: int = 6
) -> Image.Image:
    """Draw a piano roll.

    Args:
        notes: the notes.
        mark: time in seconds of a red line, such as the end of a prompt; None: no line.
        pixels_per_second: horizontal scale, reduced for pieces that would be wider than :data:`MAX_WIDTH`.
        pixels_per_pitch: height of a pitch in pixels.

    Returns:
        A picture with pitch upwards, time to the right, and labels of octaves and seconds.
    """
    layout = Layout.fit(notes, pixels_per_second, pixels_per_pitch)
    pixels = _draw_keys(layout)
    for onset, end, pitch, velocity, is_drum in zip(*(column.tolist() for column in notes), strict=True):
        soft, loud = (SOFT_DRUM, LOUD_DRUM) if is_drum else (SOFT, LOUD)
        first, last = layout.column(onset), max(layout.column(end), layout.column(onset) + 1)
        rows = layout.rows(pitch)
        inside = slice(rows.start, rows.stop - 1) if pixels_per_pitch > 2 else rows  # a gap between rows
        pixels[inside, first:last] = np.rint(soft + (loud - soft) * velocity / 127)
        pixels[inside, first] = EDGE
    if mark is not None:
        pixels[:, min(layout.column(mark), pixels.shape[1] - 1)] = MARK
    width, height = layout.size
    image = Image.new("RGB", (LEFT + width, height + BOTTOM), WHITE_KEY)
    image.paste(Image.fromarray(pixels), (LEFT, 0))
    _draw_labels(image, layout)
    return image


def write_piano_roll(path: str | Path, notes: Notes, mark: float | None = None) -> None:
    """Draw a piano roll and write it to a PNG file.

    Args:
        path: the file.
        notes: the notes.
        mark: time in seconds of a red line; None: no line.

    Raises:
        DataError: if the file cannot be written.
    """
    try:
        draw_piano_roll(notes, mark).save(path, format="PNG")
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error})") from error


def _draw_keys(layout: Layout) -> np.ndarray:
    """Draw rows of black and white keys, and a line below each C: (height, width, 3), uint8."""
    width, height = layout.size
    pixels = np.full((height, width, 3), WHITE_KEY, np.uint8)
    for pitch in range(layout.lowest, layout.highest + 1):
        rows = layout.rows(pitch)
        if pitch % 12 in BLACK_KEYS:
            pixels[rows] = BLACK_KEY
        if pitch % 12 == 0:
            pixels[rows.stop - 1] = LINE
    return pixels


def _draw_labels(image: Image.Image, layout: Layout) -> None:
    """Label the Cs (C4 is middle C) and round numbers of seconds."""
    draw = ImageDraw.Draw(image)
    width, height = layout.size
    for pitch in range(layout.lowest, layout.highest + 1, 12):
        draw.text((4, layout.rows(pitch).stop - 11), f"C{pitch // 12 - 1}", fill=LABEL)
    step = next(step for step in (1, 2, 5, 10, 30, 60, 300, 600, 3600, 36000) if step * layout.pixels_per_second > 45)
    for second in range(0, int(layout.duration) + 1, step):
        column = LEFT + layout.column(second)
        draw.line([(column, height), (column, height + 3)], fill=LABEL)
        if column + 30 < LEFT + width:
            draw.text((column + 3, height + 2), f"{second} s", fill=LABEL)
