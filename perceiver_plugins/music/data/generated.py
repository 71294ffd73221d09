"""Music that is generated, without downloads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from perceiver_plugins.music.data.module import MusicDataModule
from perceiver_plugins.music.data.prepared import Piece, Report
from perceiver_plugins.music.data.rounds import compose_round
from perceiver_plugins.sdk.data.module import check_positive


class RoundsDataModule(MusicDataModule):
    """Rounds for four voices, composed by rule from a fixed seed: exercises rather than music by people.

    All voices sing the same melody, one phrase apart. Key, metre, tempo, chords and melody of each round are random.
    Nothing is downloaded.

    Args:
        num_pieces: Training pieces, of about 900 tokens each; validation and test: a sixteenth of it each.
        batch_size: Examples per batch and device, in training.
    """

    source = "rounds"

    def __init__(self, num_pieces: int = 512, batch_size: int = 32, **kwargs: Any) -> None:
        super().__init__(batch_size=batch_size, **kwargs)
        check_positive(num_pieces=num_pieces)
        self.num_pieces = num_pieces

    def source_key(self) -> dict[str, Any]:
        return {"rounds": self.num_pieces}

    def load_pieces(self, report: Report) -> Iterator[Piece]:
        held_out = max(1, self.num_pieces // 16)
        sizes = {"train": self.num_pieces, "validation": held_out, "test": held_out}
        for number, (split, size) in enumerate(sizes.items()):
            for index in range(size):
                tokens, _ = self.tokenizer.encode(compose_round(np.random.default_rng([number, index])))
                # Where voices meet on a pitch, notes are shortened.
                yield Piece(f"{split} {index}", split, self.tokenizer.decode(tokens))
