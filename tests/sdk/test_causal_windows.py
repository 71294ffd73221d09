"""Windows of token sequences against a plain loop over the tokens."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from perceiver_plugins.sdk.data.causal import (
    CausalDataModule,
    ScoringWindows,
    TokenSequence,
    TrainingWindows,
    WindowRule,
)
from perceiver_plugins.sdk.data.loading import IGNORED, example_rng

BEGIN = 1

SIZES = (0, 1, 2, 3, 7, 8, 9, 23, 24, 25, 101)
RULES = ((24, 8, 4), (23, 7, 3), (16, 16, 8), (30, 5, 5), (24, 8, 1), (9, 4, 3), (1, 1, 1))


def sequence(size: int, begin_id: int | None = BEGIN) -> TokenSequence:
    """Create a sequence of distinct tokens, with documents of 1 to 12 tokens."""
    rng = np.random.default_rng(size)
    ids = np.arange(100, 100 + size).astype(np.uint16)
    units = rng.integers(1, 5, size=size).astype(np.uint8)
    begins = np.cumsum(rng.integers(1, 13, size=size))
    begins = np.concatenate([[0], begins])[: size and None]
    begins = begins[begins < size]
    ids[begins], units[begins] = BEGIN, 0
    return TokenSequence(ids, units, begin_id)


def plain_scores(tokens: TokenSequence, rule: WindowRule) -> dict[int, tuple[int, int]]:
    """Return (window start, latents start) by the index of each scored token."""

    def grid(t: int, size: int) -> int:
        return rule.stride * math.ceil(max(0, t - size) / rule.stride)

    return {
        t: (grid(t, rule.max_seq_len), grid(t, rule.num_latents))
        for t in range(1, len(tokens))
        if tokens.begin_id is None or tokens.input_ids[t] != tokens.begin_id
    }


@pytest.mark.parametrize("values", RULES, ids=str)
def test_each_token_is_scored_once_by_the_rule(values: tuple[int, int, int]) -> None:
    rule = WindowRule(*values)
    for size in SIZES:
        for begin_id in (BEGIN, None):
            # indices as tokens, so that each input can be located
            whole = sequence(size, begin_id)
            dataset = ScoringWindows(whole, rule, batch_size=3)
            located = TokenSequence(np.arange(size), whole.num_units, None)
            indexed = ScoringWindows(located, rule, batch_size=3)
            scored = {}
            units = 0
            for index in range(len(dataset)):
                batch, where = dataset.batch(-1, np.array([index])), indexed.batch(-1, np.array([index]))
                b, m = batch["input_ids"].shape
                n = batch["labels"].shape[1]
                assert b <= 3
                assert 1 <= n <= min(m, rule.num_latents)
                assert m <= rule.max_seq_len
                for row in range(b):
                    positions = where["input_ids"][row].tolist()
                    assert positions == list(range(positions[0], positions[0] + m))
                    assert batch["input_ids"][row].tolist() == whole.input_ids[positions].tolist()
                    for j, label in enumerate(batch["labels"][row].tolist()):
                        target = positions[m - n + j] + 1
                        if label != IGNORED:
                            assert label == whole.input_ids[target]
                            assert target not in scored
                            scored[target] = (positions[0], positions[m - n])
                units += int(batch["num_units"].sum())
            assert scored == plain_scores(whole, rule)
            assert units == sum(int(whole.num_units[target]) for target in scored)


def test_rows_of_a_batch_have_the_full_window() -> None:
    dataset = ScoringWindows(sequence(2000), WindowRule(24, 8, 4), batch_size=10)
    shapes = Counter(tuple(dataset.batch(-1, np.array([index]))["input_ids"].shape) for index in range(len(dataset)))
    assert shapes[10, 24] == max(shapes.values()) > 40
    assert sum(rows * count for (rows, _), count in shapes.items()) == pytest.approx(2000 / 4, abs=2)


def test_index_beyond_the_end_scores_nothing() -> None:
    dataset = ScoringWindows(sequence(50), WindowRule(24, 8, 4), batch_size=3)
    batch = dataset.__getitems__([len(dataset)])
    assert (batch["labels"] == IGNORED).all()
    assert batch["num_units"].sum() == 0


@pytest.mark.parametrize("values", [(4, 8, 4), (8, 4, 5), (8, 4, 0)])
def test_impossible_rule_is_refused(values: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="1 <= stride <= num_latents <= max_seq_len"):
        WindowRule(*values)


@pytest.mark.parametrize("size", [2, 3, 12, 13, 14, 47, 100])
@pytest.mark.parametrize(("max_seq_len", "num_targets"), [(12, 5), (12, 12), (13, 1)])
def test_an_epoch_has_each_label_at_most_once(size: int, max_seq_len: int, num_targets: int) -> None:
    tokens = TokenSequence(np.arange(size), np.ones(size, np.uint8))
    dataset = TrainingWindows(tokens, max_seq_len, num_targets, seed=5)
    m, n = min(max_seq_len, size - 1), min(num_targets, max_seq_len, size - 1)
    offsets = set()
    for epoch in range(20):
        labels: list[int] = []
        for index in range(len(dataset)):
            example = dataset[(epoch, index)]
            ids = example["input_ids"].tolist()
            start = ids[0]
            assert ids == [(start + step) % size for step in range(m)]  # a ring
            assert example["labels"].tolist() == [(start + m - n + step + 1) % size for step in range(n)]
            labels += example["labels"].tolist()
        offsets.add(labels[0])
        assert len(labels) == len(set(labels))
        assert len(labels) > size - n
    assert len(offsets) > 1


def test_windows_depend_on_seed_epoch_and_index_alone() -> None:
    dataset = TrainingWindows(sequence(100), 12, 5, seed=5)
    batch = dataset.__getitems__([(3, 4), (3, 0), (3, 19)])
    for row, index in enumerate((4, 0, 19)):
        example = TrainingWindows(sequence(100), 12, 5, seed=5)[(3, index)]
        assert all(torch.equal(batch[name][row], example[name]) for name in batch)
    assert not torch.equal(dataset[(3, 4)]["labels"], dataset[(4, 4)]["labels"])
    other = TrainingWindows(sequence(100), 12, 5, seed=6)
    assert not torch.equal(dataset[(3, 4)]["labels"], other[(3, 4)]["labels"])
    first = dataset[(0, 0)]["labels"]
    start = int(example_rng(5, 0, 0).integers(100)) + 12 - 5 + 1
    expected = sequence(100).input_ids[(start + np.arange(5)) % 100].astype(int)
    assert first.tolist() == np.where(expected == BEGIN, IGNORED, expected).tolist()


class Sequences(CausalDataModule):
    """Data module of sequences of given sizes."""

    def __init__(self, train: int, validation: int, max_seq_len: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sizes = {"train": train, "validation": validation}
        self.max_seq_len = max_seq_len

    def setup(self, stage: str | None = None) -> None:
        for split, size in self.sizes.items():
            self.split_datasets[split] = self.windows(sequence(size), train=split == "train")


@pytest.mark.parametrize("size", [0, 1])
def test_sequence_without_predictions_is_empty(size: int) -> None:
    assert len(TrainingWindows(sequence(size), 12, 5)) == 0
    assert len(ScoringWindows(sequence(size), WindowRule(12, 5, 2), 4)) == 0


@pytest.mark.parametrize("fitted_first", [True, False])
def test_windows_are_fitted_to_a_model(fitted_first: bool) -> None:
    module = Sequences(500, 300, 24, batch_size=4, valid_batch_size=7, num_workers=0)
    rule = WindowRule(24, 8, 4)
    if fitted_first:
        module.fit_windows(rule, 8)
    module.setup()
    if not fitted_first:
        assert next(iter(module.train_dataloader()))["labels"].shape == (4, 24)
        assert sum((batch["labels"] != IGNORED).sum() for batch in module.val_dataloader()) == len(
            plain_scores(sequence(300), rule)
        )
        module.fit_windows(rule, 8)
    training = list(module.train_dataloader())
    assert len(training) == 500 // 8 // 4
    assert {batch["labels"].shape for batch in training} == {(4, 8)}
    validation = list(module.val_dataloader())
    assert max(len(batch["labels"]) for batch in validation) == 7
    assert sum((batch["labels"] != IGNORED).sum() for batch in validation) == len(plain_scores(sequence(300), rule))


@pytest.mark.slow
def test_batches_do_not_depend_on_workers() -> None:
    loaded = []
    for workers in (0, 1, 2):
        module = Sequences(200, 150, 24, batch_size=4, num_workers=workers, seed=3)
        module.fit_windows(WindowRule(24, 8, 4), 8)
        module.setup()
        loaded.append([*module.train_dataloader(), *module.val_dataloader()])
    for other in loaded[1:]:
        assert len(other) == len(loaded[0])
        for one, two in zip(loaded[0], other, strict=True):
            assert one.keys() == two.keys()
            assert all(torch.equal(one[name], two[name]) for name in one)
