"""Sizes of output adapters that do not fit the data."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from perceiver_cli.links import SizeMismatch, explained_mismatches, find_mismatches
from perceiver_registry import UserError

CLASSES = SizeMismatch("model.decoder.num_classes", 3, "num_classes", 10)
MESSAGE = (
    "--model.decoder.num_classes=3: does not fit the data, which has num_classes=10 (leave it out to take the data's)"
)


def values(num_classes: int | None) -> dict:
    decoder = {"adapter": "classification", "num_classes": num_classes, "label_names": ["a", "b", "c"]}
    return {"model": {"encoder": {"adapter": "text"}, "decoder": decoder}}


class Data:
    vocab_size = 262
    num_classes = 10
    label_names = None


class UnreadData:
    @property
    def num_classes(self) -> int:
        raise FileNotFoundError("train.csv")


def explained(runs_model: bool = True, has_run: bool = False):
    return explained_mismatches(values(3), Data(), lambda option: f"--{option}", runs_model, lambda: has_run)


@pytest.mark.parametrize(
    ("num_classes", "data", "expected"),
    [(3, Data, [CLASSES]), (10, Data, []), (None, Data, []), (3, UnreadData, []), (3, object, [])],
)
def test_sizes_are_compared_with_the_data(num_classes, data, expected):
    assert find_mismatches(values(num_classes), data()) == expected


def test_shape_error_is_explained_until_the_model_has_run():
    def compute() -> None:
        cross_entropy(torch.zeros(1, 3), torch.tensor([9]))

    with pytest.raises(UserError) as explanation, explained():
        compute()
    assert str(explanation.value).startswith(f"{MESSAGE}: Target 9 ")
    with pytest.raises(IndexError), explained(has_run=True):
        compute()


def test_error_before_the_model_runs_is_explained_if_it_names_the_field():
    with pytest.raises(UserError) as explanation, explained(runs_model=False):
        raise ValueError("label_names: 10 names do not go with num_classes=3")
    assert str(explanation.value) == MESSAGE
    with pytest.raises(ValueError, match=r"^dropout=2: too large$"), explained(runs_model=False):
        raise ValueError("dropout=2: too large")


def test_user_error_is_explained_if_it_names_the_field():
    with pytest.raises(UserError) as explanation, explained():
        raise UserError("label_names: 10 names do not go with num_classes=3")
    assert str(explanation.value) == MESSAGE
    with pytest.raises(UserError, match=r"^train\.txt: not found$"), explained():
        raise UserError("train.txt: not found")


def test_memory_error_is_not_explained():
    with pytest.raises(torch.OutOfMemoryError), explained():
        raise torch.OutOfMemoryError("out of memory")


def test_first_batch_names_flag_and_sizes(perceiver, small):
    error = perceiver("fit", *small, "--model.decoder.max_seq_len=16", "--trainer.max_steps=1").error.splitlines()[-1]
    assert error.startswith(
        "--model.decoder.max_seq_len=16: does not fit the data, which has max_seq_len=32 "
        "(leave it out to take the data's): "
    )
