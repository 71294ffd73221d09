"""Chorales as MIDI files, and n-grams of tokens as a baseline of music models.

python benchmarks/music.py chorales jsb16th-satb-train-valid.json.xz chorales
python benchmarks/music.py ngrams chorales --transpose=5
python benchmarks/music.py ngrams

The first command converts grids of sixteenths (split -> chorales -> [soprano, alto, tenor, bass], pitches or -1), such
as Jsb16thSeparated.json of https://github.com/czhuang/JSB-Chorales-dataset compressed with xz, to a folder of each
split: equal consecutive cells of a voice are one note. The others print the validation loss of interpolated n-grams
(Witten and Bell, 1991) of the tokens of a folder or of the rounds.
"""

from __future__ import annotations

import argparse
import json
import lzma
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from perceiver_plugins.music import Notes, write_midi
from perceiver_plugins.music.data import MidiFilesDataModule, MusicDataModule, RoundsDataModule

SIXTEENTH = 0.125
"""Seconds of a cell: 120 quarter notes per minute. Arbitrary."""

VELOCITY = 63
"""Velocity of all notes, one of those of the tokens. Arbitrary."""


def convert_grid(grid: Sequence[Sequence[int]]) -> Notes:
    """Convert cells (sixteenths, voices) to notes."""
    rows = []
    for voice in zip(*grid, strict=True):
        begin = 0
        for pitch, cells in groupby(voice):
            end = begin + len(list(cells))
            if pitch >= 0:
                rows.append((begin * SIXTEENTH, end * SIXTEENTH, pitch, VELOCITY, False))
            begin = end
    return Notes.from_rows(rows)


def write_chorales(source: Path, folder: Path) -> None:
    """Write the chorales of each split as MIDI files."""
    with lzma.open(source) as file:
        splits = json.load(file)
    for split, chorales in splits.items():
        (folder / split).mkdir(parents=True, exist_ok=True)
        pieces = [convert_grid(grid) for grid in chorales]
        for number, notes in enumerate(pieces):
            write_midi(folder / split / f"{number:03d}.mid", notes)
        cells = sum(len(grid) * len(grid[0]) for grid in chorales)
        print(f"{split}: {len(pieces)} chorales, {cells:,} cells, {sum(notes.size for notes in pieces):,} notes")


class NGrams:
    """Interpolated n-grams with Witten-Bell smoothing, down to the uniform distribution.

    Args:
        order: number of tokens of the context.
        size: size of the vocabulary.
    """

    def __init__(self, order: int, size: int) -> None:
        self.size = size
        self.counts: list[dict[tuple[int, ...], Counter[int]]] = [defaultdict(Counter) for _ in range(order + 1)]

    def fit(self, tokens: Sequence[int]) -> None:
        """Count the n-grams of a sequence."""
        for order, counts in enumerate(self.counts):
            for index in range(order, len(tokens)):
                counts[tuple(tokens[index - order : index])][tokens[index]] += 1

    def log_probabilities(self, tokens: Sequence[int]) -> Iterator[list[float]]:
        """Yield, for each token but the first, its log-probability by each order."""
        for index in range(1, len(tokens)):
            probability, result = 1 / self.size, []
            for order, counts in enumerate(self.counts):
                seen = counts.get(tuple(tokens[max(0, index - order) : index])) if index >= order else None
                if seen:
                    total, kinds = seen.total(), len(seen)
                    probability = (seen[tokens[index]] + kinds * probability) / (total + kinds)
                result.append(math.log(probability))
            yield result


def print_ngrams(data: MusicDataModule, order: int, transpose: int) -> None:
    """Print the validation loss of n-grams of each order."""
    data.prepare_data()
    data.setup()
    train, valid = (data.split_datasets[split].sequence for split in ("train", "validation"))
    ids = train.input_ids.astype(np.int64)
    low, high = data.tokenizer.pitch_range(ids)
    grams = NGrams(order, data.vocab_size)
    for semitones in range(max(-transpose, -low), min(transpose, 127 - high) + 1):
        grams.fit(data.tokenizer.transpose(ids, semitones).tolist())
    tokens = valid.input_ids.astype(np.int64).tolist()
    logs = np.array(list(grams.log_probabilities(tokens)))[np.array(tokens[1:]) != valid.begin_id]
    losses, notes = -logs.sum(axis=0), int(valid.num_units.sum())
    print(f"validation: {len(logs):,} tokens, {notes:,} notes")
    for each, loss in enumerate(losses):
        print(f"order {each}: {loss / len(logs):.4f} nats per token, {loss / notes:.3f} per note")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    chorales = commands.add_parser("chorales")
    chorales.add_argument("source", type=Path)
    chorales.add_argument("folder", type=Path)
    ngrams = commands.add_parser("ngrams")
    ngrams.add_argument("path", nargs="?", help="folder or archive of MIDI files; default: the rounds")
    ngrams.add_argument("--order", type=int, default=12, help="largest number of tokens of the context")
    ngrams.add_argument("--transpose", type=int, default=0, help="semitones by which the training data is also shifted")
    options = parser.parse_args()
    if options.command == "chorales":
        write_chorales(options.source, options.folder)
    else:
        data = MidiFilesDataModule(options.path) if options.path else RoundsDataModule()
        print_ngrams(data, options.order, options.transpose)


if __name__ == "__main__":
    main()
